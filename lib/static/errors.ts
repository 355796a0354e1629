/** Errors of the plugin, with the codes of `@fastify/static`. */
import createError, { type FastifyErrorConstructor } from '@fastify/error';

// Explicit types: the inferred ones refer to `createError` as a namespace, which does not work with every `moduleResolution`.

export const FST_STATIC_INVALID_OPTION: FastifyErrorConstructor<{ code: string }, [string, string]> = createError<
  [string, string]
>('FST_STATIC_INVALID_OPTION', '"%s" option %s');

export const FST_STATIC_INVALID_OPTION_VALUE: FastifyErrorConstructor<{ code: string }, [string, string]> = createError<
  [string, string]
>('FST_STATIC_INVALID_OPTION_VALUE', '"%s" option %s', 500, TypeError);

export const FST_STATIC_MULTIROOT_LIST_CONFLICT: FastifyErrorConstructor<{
  code: 'FST_STATIC_MULTIROOT_LIST_CONFLICT';
  statusCode: 500;
}> = createError('FST_STATIC_MULTIROOT_LIST_CONFLICT', 'multi-root with list option is not supported', 500, TypeError);

export const FST_STATIC_INVALID_REDIRECT_URL: FastifyErrorConstructor<{ code: string }, [string]> = createError<
  [string]
>('FST_STATIC_INVALID_REDIRECT_URL', 'Invalid redirect URL: "%s"', 400);

export const FST_STATIC_FORBIDDEN_PATH: FastifyErrorConstructor<{
  code: 'FST_STATIC_FORBIDDEN_PATH';
  statusCode: 403;
}> = createError('FST_STATIC_FORBIDDEN_PATH', 'Forbidden', 403);
