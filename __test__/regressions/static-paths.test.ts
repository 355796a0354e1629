/** File names in URLs: every spelling of a name finds the file, and none bypasses an access check. */
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import http, { type Server } from 'node:http';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import fastify, { type FastifyInstance } from 'fastify';
import { createStaticHandler, frontDoor } from 'zerosend';
import fastifyStatic, { frontDoor as fastifyFrontDoor } from 'zerosend/fastify';

import { scratch } from '../support/files.js';
import { get, portOf } from '../support/wire.js';

const RESERVED = [...'$&+,:;=@'];
const NAMES = [...RESERVED.map((character) => `a${character}b.txt`), 'a%2Bb.txt', 'a b#c?d.txt', 'all$&+,:;=@.txt'];

function files(t: ExecutionContext): string {
  const root = scratch(t);
  for (const name of NAMES) writeFileSync(join(root, name), name);
  mkdirSync(join(root, 'guarded@x'));
  writeFileSync(join(root, 'guarded@x', 'secret.txt'), 'secret');
  writeFileSync(join(root, 'guarded@x.txt'), 'secret');
  return root;
}

async function listen(t: ExecutionContext, server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return portOf(server);
}

async function appOf(t: ExecutionContext, app: FastifyInstance): Promise<number> {
  app.get('/guarded@x/*', async (_request, reply) => reply.code(401).send('guarded'));
  app.get('/guarded@x.txt', async (_request, reply) => reply.code(401).send('guarded'));
  t.teardown(() => app.close());
  await app.listen({ port: 0, host: '127.0.0.1' });
  return portOf(app.server);
}

const fronts: Record<string, (t: ExecutionContext, root: string) => Promise<number>> = {
  handler: (t, root) => listen(t, http.createServer(createStaticHandler(root))),
  'front door': (t, root) => {
    const server = http.createServer((_request, response) => response.writeHead(404).end());
    frontDoor(server, { root });
    return listen(t, server);
  },
  plugin: async (t, root) => {
    const app = fastify();
    await app.register(fastifyStatic, { root });
    return await appOf(t, app);
  },
  'front door of Fastify': (t, root) => appOf(t, fastify({ serverFactory: fastifyFrontDoor({ root }) })),
};

for (const [front, make] of Object.entries(fronts)) {
  test(`${front}: reserved characters may be escaped`, async (t) => {
    const port = await make(t, files(t));
    for (const name of NAMES) {
      const { status, body } = await get(port, `/${encodeURIComponent(name)}`);
      t.is(status, 200, name);
      t.is(body.toString(), name);
    }
    t.is((await get(port, `/${encodeURIComponent('a+b.txt')}?query=%2B`, {}, 'HEAD')).status, 200);
    for (const hostile of [
      '/a%2Fb.txt',
      '/%2Fa+b.txt',
      '/a%5Cb.txt',
      '/..%2Fa+b.txt',
      '/%2E%2E/a%2Bb.txt',
      '/%40%00',
    ]) {
      const { status } = await get(port, hostile);
      t.true(status >= 400 && status < 500, `${hostile}: ${status}`);
    }
  });
}

for (const front of ['plugin', 'front door of Fastify']) {
  test(`${front}: no spelling bypasses a route of the application`, async (t) => {
    const port = await (fronts[front] as (typeof fronts)[string])(t, files(t));
    for (const path of ['/guarded@x/secret.txt', '/guarded@x.txt']) {
      for (const spelling of [path, path.replace('@', '%40'), path.replace('@', '%40').replace('r', '%72')]) {
        const { status, body } = await get(port, spelling);
        t.deepEqual([status, body.toString()], [401, 'guarded'], spelling);
      }
    }
  });
}

test('allowedPath is called with the name that is opened', async (t) => {
  const root = files(t);
  const allowedPath = (path: string) => !path.includes('@');
  const handler = await listen(t, http.createServer(createStaticHandler(root, { allowedPath })));
  const app = fastify();
  await app.register(fastifyStatic, { root, allowedPath });
  t.teardown(() => app.close());
  await app.listen({ port: 0, host: '127.0.0.1' });
  for (const port of [handler, portOf(app.server)]) {
    for (const path of ['/guarded@x.txt', '/guarded%40x.txt', '/guarded%40x/secret.txt', '/guarded@x/secret.txt']) {
      t.is((await get(port, path)).status, 404, path);
    }
    t.is((await get(port, '/a%2Bb.txt')).status, 200);
  }
});
