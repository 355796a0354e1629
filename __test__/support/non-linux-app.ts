/**
 * An application with the plugin and a server with the handler, both for the directory in the first argument. Prints their ports;
 * paths below `/-/` return internal state.
 */
import { createServer } from 'node:http';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import fastify from 'fastify';
import { createStaticHandler } from 'zerosend';
import fastifyStatic from 'zerosend/fastify';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

// Exits together with the test.
process.stdin.on('end', () => process.exit()).resume();

const [root = ''] = process.argv.slice(2);
const app = fastify({ routerOptions: { maxParamLength: 1000 } });
const methods: unknown[] = [];
const seen: string[] = [];
app.addHook('onResponse', async (_request, reply) => {
  if (reply.zerosendMethod !== null) methods.push(reply.zerosendMethod);
});
await app.register(fastifyStatic, { root, redirect: true, cache: { maxFiles: 10 }, method: 'sendfile' });
const more = { root, decorateReply: false };
await app.register(fastifyStatic, { ...more, prefix: '/list', list: true });
await app.register(fastifyStatic, { ...more, prefix: '/zip', preCompressed: ['zstd', 'br', 'gzip'] });
await app.register(fastifyStatic, { ...more, prefix: '/each', wildcard: false });
await app.register(fastifyStatic, {
  ...more,
  prefix: '/watched',
  setHeaders: (reply, path, stat) => void reply.header('x-file', `${path.slice(root.length)} ${stat.size}`),
  allowedPath: (path) => path !== '/b.txt',
  onFile: async (path) => {
    seen.push(path.slice(root.length));
  },
});
app.get('/-/send/:name', (request, reply) => reply.sendFile((request.params as { name: string }).name));
app.get('/-/absolute', (_request, reply) => reply.sendFile('a.txt', root));
app.get('/-/download', (_request, reply) => reply.download('a.txt', 'näme.txt'));
app.get('/-/replaced', { onSend: async () => 'something else' }, (_request, reply) => reply.sendFile('big'));
app.get('/-/collect', () => {
  collect();
  return 'collected';
});
app.get('/-/stats', () => app.zerosend.stats());
app.get('/-/seen', () => ({ methods: methods.splice(0), files: seen.splice(0) }));
app.get('/-/inject/*', async (request) => {
  const { rawPayload, statusCode, headers } = await app.inject(`/${(request.params as { '*': string })['*']}`);
  return { statusCode, headers, body: rawPayload.toString('latin1') };
});
await app.listen({ port: 0, host: '127.0.0.1' });

const handler = createStaticHandler(root, { redirect: true, cache: true, etag: 'content', multipart: true });
const server = createServer((request, response) => {
  if (request.url === '/-/stats') response.end(JSON.stringify(handler.stats()));
  else handler(request, response);
}).listen(0, '127.0.0.1', () => {
  const ports = [app.server, server].map((one) => (one.address() as { port: number }).port);
  console.log(JSON.stringify({ platform: process.platform, ports }));
});
