/** The errors of the plugin, with the codes of `@fastify/static`. */
import createError from '@fastify/error';

export const FST_STATIC_INVALID_OPTION = createError<[string, string]>('FST_STATIC_INVALID_OPTION', '"%s" option %s');

export const FST_STATIC_INVALID_OPTION_VALUE = createError<[string, string]>(
  'FST_STATIC_INVALID_OPTION_VALUE',
  '"%s" option %s',
  500,
  TypeError,
);

export const FST_STATIC_MULTIROOT_LIST_CONFLICT = createError(
  'FST_STATIC_MULTIROOT_LIST_CONFLICT',
  'multi-root with list option is not supported',
  500,
  TypeError,
);

export const FST_STATIC_INVALID_REDIRECT_URL = createError<[string]>(
  'FST_STATIC_INVALID_REDIRECT_URL',
  'Invalid redirect URL: "%s"',
  400,
);

export const FST_STATIC_FORBIDDEN_PATH = createError('FST_STATIC_FORBIDDEN_PATH', 'Forbidden', 403);
