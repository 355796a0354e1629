/** The types of the plugin. Checked by tsc, not executed. */
import type { Stats } from 'node:fs';

import type TheirPlugin from '@fastify/static';
import fastify, { type FastifyPluginAsync, type FastifyReply, type FastifyRequest } from 'fastify';
import fastifyStatic, {
  type ExtendedInformation,
  errors,
  type FastifyStaticOptions,
  type ListDir,
  type ListFile,
  type ListRender,
  fastifyStatic as named,
  type ResponseMethod,
  type SendOptions,
  type ZerosendStatistics,
} from 'zerosend/fastify';

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function is<T extends true>(): T | undefined {
  return undefined;
}

const app = fastify();
app.register(fastifyStatic, { root: '/srv/www' });
app.register(named, { root: ['/srv/a', new URL('file:///srv/b')], prefix: '/x', decorateReply: false });
app.register(fastifyStatic.default, { serve: false });
app.register(fastifyStatic.fastifyStatic, () => ({ root: '/srv/www' }));
fastifyStatic satisfies FastifyPluginAsync<FastifyStaticOptions>;

const all = {
  root: '/srv/www',
  serve: true,
  prefix: '/p',
  prefixAvoidTrailingSlash: true,
  decorateReply: true,
  schemaHide: true,
  setHeaders(reply, path, stat) {
    is<Same<typeof reply, FastifyReply>>();
    is<Same<typeof path, string>>();
    is<Same<typeof stat, Stats>>();
  },
  redirect: true,
  wildcard: false,
  globIgnore: ['**/*.map'],
  list: {
    format: 'html',
    names: ['/'],
    extendedFolderInfo: true,
    render: (dirs, files) => `${dirs.length} ${files.length}`,
  },
  allowedPath(path, root, request) {
    is<Same<typeof root, string | undefined>>();
    is<Same<typeof request, FastifyRequest>>();
    return path !== '';
  },
  preCompressed: ['zstd', 'br'],
  suppressWarning: true,
  acceptRanges: true,
  contentType: true,
  cacheControl: { '*.html': 'no-cache', '*.map': false },
  dotfiles: 'deny',
  etag: 'content',
  extensions: ['html'],
  immutable: 'hashed',
  index: false,
  lastModified: true,
  maxAge: '1d',
  onFile: async (_path, stat) => void stat.size,
  serveDotFiles: true,
  constraints: { version: '1.0.0' },
  logLevel: 'warn',
  symlinks: 'beneath',
  multipart: 8,
  fallback: 'index.html',
  conformance: 'rfc9110',
  method: 'sendfile',
} satisfies FastifyStaticOptions;
app.register(fastifyStatic, all);
app.register(fastifyStatic, { root: '/srv/www', list: true });
app.register(fastifyStatic, { root: '/srv/www', list: { format: 'json', jsonFormat: 'extended' } });

// Options of @fastify/static are accepted.
declare const theirs: TheirPlugin.FastifyStaticOptions;
app.register(fastifyStatic, theirs);
declare const theirSendOptions: TheirPlugin.SendOptions;
theirSendOptions satisfies SendOptions;
is<Same<fastifyStatic.FastifyStaticOptions, FastifyStaticOptions>>();
is<Same<fastifyStatic.SendOptions, SendOptions>>();
is<Same<fastifyStatic.ListDir, ListDir>>();
is<Same<fastifyStatic.ListRender, ListRender>>();

// @ts-expect-error not one of the values
app.register(fastifyStatic, { root: '/srv/www', dotfiles: 'hide' });
// @ts-expect-error unknown method
app.register(fastifyStatic, { root: '/srv/www', method: 'magic' });
// @ts-expect-error HTML listings require `render`
app.register(fastifyStatic, { root: '/srv/www', list: { format: 'html' } });
// @ts-expect-error unknown coding
app.register(fastifyStatic, { root: '/srv/www', preCompressed: ['lzma'] });
// @ts-expect-error invalid type of root
app.register(fastifyStatic, { root: 42 });

app.get('/', async (_request, reply) => {
  is<Same<typeof reply.zerosendMethod, ResponseMethod | null>>();
  reply.sendFile('a');
  reply.sendFile('a', '/root');
  reply.sendFile('a', { maxAge: 1, start: 0, end: 9, highWaterMark: 1024, maxContentRangeChunkSize: 10 });
  reply.sendFile('a', '/root', { cacheControl: false });
  reply.download('a');
  reply.download('a', 'name');
  reply.download('a', { root: '/root' });
  // @ts-expect-error the file name is required
  reply.sendFile();
  // @ts-expect-error an option of the registration
  reply.sendFile('a', { preCompressed: true });
  is<Same<ReturnType<typeof reply.sendFile>, FastifyReply>>();
  return reply.download('a', 'name', { etag: false });
});

is<Same<ReturnType<typeof app.zerosend.stats>, ZerosendStatistics>>();
const render: ListRender = (dirs: ListDir[], files: ListFile[]) => {
  is<Same<(typeof dirs)[number]['extendedInfo'], ExtendedInformation | undefined>>();
  return files.map(({ href, name, stats }) => `${href} ${name} ${stats.size}`).join();
};
void render;
new errors.FST_STATIC_INVALID_OPTION('root', 'is required').statusCode satisfies number | undefined;
