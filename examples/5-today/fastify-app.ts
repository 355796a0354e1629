/**
 * A Fastify application that serves files: a drop-in replacement for `@fastify/static`.
 *
 *   npx tsx examples/5-today/fastify-app.ts                (runs a demonstration and exits)
 *   npx tsx examples/5-today/fastify-app.ts --port 3000
 *
 * Look for: hooks, routes, `reply.sendFile` and `reply.download` work as with `@fastify/static`.
 *
 *   GET /                  200 text/html; charset=utf-8, 27 bytes
 *   GET /static/app.js     200 application/javascript; charset=utf-8, cached for 3600 s
 *   GET /report            200 attachment; filename=large.bin, 5000000 bytes
 *   GET /api               200 {"hello":"world"}
 *   onResponse hook: 4 responses
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import fastify from 'fastify';
import zerosend from 'zerosend/fastify';

import { isDemonstration, makeFile, option, scratch } from '../common.js';

const root = scratch();
writeFileSync(join(root, 'index.html'), '<!doctype html><title>hello');
writeFileSync(join(root, 'app.js'), 'console.log("hello");');
makeFile(5_000_000, root, 'large.bin');

const app = fastify();
let responses = 0;
app.addHook('onResponse', async () => {
  responses += 1;
});
await app.register(zerosend, { root, prefix: '/static/', maxAge: '1h' });
app.get('/', (_, reply) => reply.sendFile('index.html'));
app.get('/report', (_, reply) => reply.download('large.bin'));
app.get('/api', async () => ({ hello: 'world' }));
const url = await app.listen({ port: Number(option('port', '0')), host: '127.0.0.1' });
if (!isDemonstration()) console.log(`listening on ${url}`);
else {
  for (const path of ['/', '/static/app.js', '/report', '/api']) {
    const response = await fetch(url + path);
    const body = Buffer.from(await response.arrayBuffer());
    const { headers } = response;
    const age = /max-age=(\d+)/.exec(headers.get('cache-control') ?? '')?.[1];
    const more =
      path === '/api'
        ? body.toString()
        : path === '/static/app.js'
          ? `${headers.get('content-type')}, cached for ${age} s`
          : `${headers.get('content-disposition') ?? headers.get('content-type')}, ${body.length} bytes`;
    console.log(`GET ${path.padEnd(18)} ${response.status} ${more}`);
  }
  await app.close();
  console.log(`onResponse hook: ${responses} responses`);
}
