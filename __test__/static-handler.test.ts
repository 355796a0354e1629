/** `createStaticHandler` under `node:http` and Express. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import express from 'express';
import { createStaticHandler } from 'zerosend';

import { openDescriptors, pattern, patternFile, scratch, settled, sha256, until } from './support/files.js';
import { exchange, get, parseResponses, portOf } from './support/wire.js';

const serial = test.serial;
const MiB = 1024 * 1024;

function site(t: ExecutionContext): string {
  const root = scratch(t);
  mkdirSync(join(root, 'dir'));
  writeFileSync(join(root, 'a.txt'), '0123456789');
  writeFileSync(join(root, 'dir', 'index.html'), '<dir>');
  patternFile(root, 'big', 8 * MiB);
  return root;
}

async function listen(t: ExecutionContext, listener: RequestListener): Promise<number> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  t.teardown(() => server.close());
  return portOf(server);
}

serial('node:http: files, ranges, conditions, and errors', async (t) => {
  const root = site(t);
  const handler = createStaticHandler(root, { redirect: true, maxAge: '1h' });
  const port = await listen(t, (request, response) => handler(request, response));
  const full = await get(port, '/a.txt?x=1');
  t.like(full, {
    status: 200,
    headers: { 'cache-control': 'public, max-age=3600', 'content-type': 'text/plain; charset=utf-8' },
  });
  t.is(full.body.toString(), '0123456789');
  t.is(sha256((await get(port, '/big')).body), sha256(pattern(8 * MiB)));
  t.like(await get(port, '/a.txt', {}, 'HEAD'), { status: 200, headers: { 'content-length': '10' } });
  t.like(await get(port, '/a.txt', { Range: 'bytes=2-3' }), { status: 206, body: Buffer.from('23') });
  t.like(await get(port, '/a.txt', { Range: 'bytes=20-' }), {
    status: 416,
    headers: { 'content-range': 'bytes */10' },
  });
  t.is((await get(port, '/a.txt', { 'If-None-Match': full.headers.etag as string })).status, 304);
  t.like(await get(port, '/dir?x=1'), { status: 301, headers: { location: '/dir/?x=1' } });
  t.is((await get(port, '/dir/')).body.toString(), '<dir>');
  t.is((await get(port, '/nope')).status, 404);
  t.is((await get(port, '/../a.txt')).status, 403);
  t.is((await get(port, '/%zz')).status, 400);
  t.like(await get(port, '/a.txt', {}, 'POST'), { status: 405, headers: { allow: 'GET, HEAD' } });
  const { responses, methods } = handler.stats();
  t.is(responses, 6);
  t.is(methods.sendfile?.responses, 1);
});

serial('Express: mounts, order of handlers, access checks, headers', async (t) => {
  const root = site(t);
  const app = express();
  app.use(
    '/assets',
    createStaticHandler(root, {
      redirect: true,
      allowedPath: (path) => path !== '/dir/index.html',
      setHeaders: (response, path, stat) =>
        void response.setHeader('x-file', `${path.slice(root.length)} ${stat.size}`),
    }),
  );
  app.use((_request, response) => void response.status(404).send('others'));
  const port = await listen(t, app);
  const response = await get(port, '/assets/a.txt');
  t.is(response.body.toString(), '0123456789');
  t.like(response.headers, { 'x-file': '/a.txt 10', 'x-powered-by': 'Express' });
  t.is(sha256((await get(port, '/assets/big')).body), sha256(pattern(8 * MiB)));
  t.like(await get(port, '/assets/dir'), { status: 301, headers: { location: '/assets/dir/' } });
  for (const [path, method] of [
    ['/assets/nope', 'GET'],
    ['/assets/dir/', 'GET'],
    ['/assets/a.txt', 'POST'],
    ['/assets/../a.txt', 'GET'],
    ['/x', 'GET'],
  ] as const) {
    t.is((await get(port, path, {}, method)).body.toString(), 'others', path);
  }
});

serial('pipelined, half-closed and aborted clients leave no descriptors or handles', async (t) => {
  const root = site(t);
  const handler = createStaticHandler(root, { onFile: () => new Promise((resolve) => setTimeout(resolve, 2)) });
  const port = await listen(t, (request, response) => handler(request, response));
  const responses = parseResponses(
    await exchange(
      port,
      ['/a.txt', '/big', '/nope', '/big'].map((path) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`).join(''),
      true,
    ),
  );
  t.deepEqual(
    responses.map(({ status }) => status),
    [200, 200, 404, 200],
  );
  t.is(sha256(responses[3]?.body as Buffer), sha256(pattern(8 * MiB)));
  const before = openDescriptors();
  await Promise.all(
    Array.from({ length: 200 }, async () => {
      const { connect } = await import('node:net');
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => {});
      socket.write('GET /big HTTP/1.1\r\nHost: x\r\n\r\n');
      await new Promise((resolve) => socket.once('data', resolve));
      socket.destroy();
    }),
  );
  await settled(t, before);
  await until(() => handler.stats().aborted >= 150);
  t.is((await get(port, '/a.txt')).status, 200);
});

serial('invalid options, and a closed handler', async (t) => {
  const root = site(t);
  for (const [path, options, message] of [
    ['relative', {}, /invalid root 'relative': use an absolute path/],
    [root, { setHeaders: 1 }, /invalid setHeaders 1/],
    [root, { dotfiles: 'x' }, /invalid dotfiles 'x'/],
    [[], {}, /roots? is empty/],
  ] as const) {
    t.throws(() => createStaticHandler(path as string, options as object), {
      code: 'ERR_ZEROSEND_INVALID_ARGUMENT',
      message,
    });
  }
  const handler = createStaticHandler(root);
  const port = await listen(t, (request, response) => handler(request, response));
  t.is((await get(port, '/a.txt')).status, 200);
  handler.close();
  t.is((await get(port, '/a.txt')).status, 404);
});
