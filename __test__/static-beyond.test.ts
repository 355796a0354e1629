/** Options that `@fastify/static` does not have, and the method of each response. */
import { mkdirSync, renameSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import fastify, { type FastifyInstance } from 'fastify';
import fastifyStatic, { type FastifyStaticOptions, type ResponseMethod } from 'zerosend/fastify';

import { openDescriptors, pattern, patternFile, scratch, settle, settled, sha256, until } from './support/files.js';
import { exchange, get, parseResponses, portOf } from './support/wire.js';

const serial = test.serial;
const DATE = new Date(1_700_000_000_000);

function site(t: ExecutionContext): string {
  const root = scratch(t);
  mkdirSync(join(root, 'assets'));
  mkdirSync(join(root, 'sub'));
  const files: Record<string, string> = {
    'index.html': '<app>',
    'a.txt': '0123456789',
    'app.js': 'plain',
    'app.js.zst': 'zst',
    'app.js.br': 'br',
    'assets/index-BH3kT9aZ.js': 'hashed',
    'assets/style.css': 'css',
    'sub/b.txt': 'b',
  };
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(root, name), content);
    utimesSync(join(root, name), DATE, DATE);
  }
  settle();
  return root;
}

async function serve(
  t: ExecutionContext,
  options: FastifyStaticOptions,
  prepare?: (app: FastifyInstance) => unknown,
): Promise<{ app: FastifyInstance; port: number }> {
  const app = fastify();
  await prepare?.(app);
  await app.register(fastifyStatic, options);
  await app.listen({ port: 0, host: '127.0.0.1' });
  t.teardown(() => app.close());
  return { app, port: portOf(app.server) };
}

serial('symlinks: follow, beneath, deny', async (t) => {
  const root = site(t);
  const outside = scratch(t);
  writeFileSync(join(outside, 'secret'), 'secret');
  symlinkSync(join(outside, 'secret'), join(root, 'leak'));
  symlinkSync(outside, join(root, 'tree'));
  symlinkSync('sub/b.txt', join(root, 'inside'));
  symlinkSync('../../../../../../../etc/hostname', join(root, 'sub', 'up'));
  const statuses = async (symlinks: 'follow' | 'beneath' | 'deny') => {
    const { port } = await serve(t, { root, symlinks });
    const paths = ['/leak', '/tree/secret', '/inside', '/sub/up', '/a.txt'];
    return await Promise.all(paths.map(async (path) => (await get(port, path)).status));
  };
  t.deepEqual(await statuses('follow'), [200, 200, 200, 200, 200]);
  t.deepEqual(await statuses('beneath'), [403, 403, 200, 403, 200]);
  t.deepEqual(await statuses('deny'), [403, 403, 403, 403, 200]);
});

serial('multipart: several ranges in one response, up to the limit', async (t) => {
  const root = site(t);
  const { port } = await serve(t, { root, multipart: 2 });
  const response = await get(port, '/a.txt', { Range: 'bytes=0-1,5-6' });
  t.is(response.status, 206);
  const boundary = /^multipart\/byteranges; boundary=(\S+)$/.exec(response.headers['content-type'] as string)?.[1];
  const part = (range: string, bytes: string) =>
    `\r\n--${boundary}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-range: bytes ${range}/10\r\n\r\n${bytes}`;
  t.is(response.body.toString(), `${part('0-1', '01')}${part('5-6', '56')}\r\n--${boundary}--\r\n`);
  t.is(Number(response.headers['content-length']), response.body.length);
  t.is((await get(port, '/a.txt', { Range: 'bytes=0-0,2-2,4-4' })).status, 200, 'more than the cap: the whole file');
  t.like(await get(port, '/a.txt', { Range: 'bytes=0-0' }), { status: 206, body: Buffer.from('0') });
});

serial("etag: 'content' is strong and depends on the content only", async (t) => {
  const root = site(t);
  writeFileSync(join(root, 'same.txt'), '0123456789');
  utimesSync(join(root, 'same.txt'), DATE, new Date(DATE.getTime() - 5000));
  settle();
  const { port } = await serve(t, { root, etag: 'content', preCompressed: true });
  const tag = async (path: string, headers = {}) => (await get(port, path, headers)).headers.etag as string;
  const first = await tag('/a.txt');
  t.regex(first, /^"[0-9a-f]{32}"$/);
  t.is(await tag('/a.txt'), first);
  t.is(await tag('/same.txt'), first);
  t.not(await tag('/app.js'), await tag('/app.js', { 'Accept-Encoding': 'br' }));
  t.is((await get(port, '/a.txt', { 'If-None-Match': first })).status, 304);
  t.is((await get(port, '/a.txt', { Range: 'bytes=0-1', 'If-Range': first })).status, 206);
  writeFileSync(join(root, 'next.txt'), '9876543210');
  utimesSync(join(root, 'next.txt'), DATE, DATE);
  renameSync(join(root, 'next.txt'), join(root, 'a.txt'));
  t.not(await tag('/a.txt'), first, 'same size and time, other bytes');
});

serial('a content tag is computed once, without blocking the JavaScript thread', async (t) => {
  const root = site(t);
  const file = join(root, 'huge');
  writeFileSync(file, '');
  truncateSync(file, 512 * 1024 * 1024);
  utimesSync(file, DATE, DATE);
  settle();
  const { port } = await serve(t, { root, etag: 'content' });
  let longest = 0;
  let last = performance.now();
  const ticks = setInterval(() => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }, 5);
  const start = performance.now();
  await get(port, '/huge', {}, 'HEAD');
  const hashing = performance.now() - start;
  clearInterval(ticks);
  const again = performance.now();
  await Promise.all(Array.from({ length: 20 }, () => get(port, '/huge', {}, 'HEAD')));
  const remembered = performance.now() - again;
  t.log(
    `512 MiB hashed in ${hashing.toFixed(0)} ms, longest pause ${longest.toFixed(0)} ms, 20 more in ${remembered.toFixed(0)} ms`,
  );
  t.true(longest < hashing / 2);
  t.true(remembered < hashing);
});

serial('preCompressed: zstd, and an order of preference', async (t) => {
  const { port } = await serve(t, { root: site(t), preCompressed: ['zstd', 'br'] });
  const coding = async (accept: string) =>
    (await get(port, '/app.js', { 'Accept-Encoding': accept })).headers['content-encoding'];
  t.is(await coding('gzip, br, zstd'), 'zstd');
  t.is(await coding('gzip, br'), 'br');
  t.is(await coding('gzip'), undefined);
  t.is((await get(port, '/app.js', { 'Accept-Encoding': 'zstd' })).body.toString(), 'zst');
});

serial('cacheControl by glob pattern, and immutable for names with a content hash', async (t) => {
  const root = site(t);
  const { port } = await serve(t, {
    root,
    maxAge: '1m',
    immutable: 'hashed',
    cacheControl: { '*.html': 'no-cache', 'sub/**': false },
  });
  const value = async (path: string) => (await get(port, path)).headers['cache-control'];
  t.is(await value('/'), 'no-cache');
  t.is(await value('/sub/b.txt'), undefined);
  t.is(await value('/assets/index-BH3kT9aZ.js'), 'public, max-age=31536000, immutable');
  t.is(await value('/assets/style.css'), 'public, max-age=60');
});

serial('fallback: the page of a single-page application', async (t) => {
  const root = site(t);
  const seen: string[] = [];
  const { port } = await serve(t, { root, fallback: 'index.html', allowedPath: (path) => seen.push(path) > 0 });
  for (const path of ['/users/42', '/sub', '/sub/', '/nope']) {
    t.like(await get(port, path), { status: 200, body: Buffer.from('<app>') }, path);
  }
  t.true(seen.includes('/index.html'), 'allowedPath is called with it');
  t.is((await get(port, '/nope.js')).status, 404, 'names with an extension are files');
  t.is((await get(port, '//users')).status, 403);
  const two = await serve(t, {
    root: [scratch(t), root],
    fallback: 'index.html',
    allowedPath: (path) => path !== '/sub/b.txt',
  });
  t.is((await get(two.port, '/users/42')).body.toString(), '<app>');
  t.is((await get(two.port, '/a.txt')).body.toString(), '0123456789');
  t.is((await get(two.port, '/sub/b.txt')).status, 404);
});

serial("conformance: 'rfc9110'", async (t) => {
  const { port } = await serve(t, { root: site(t), conformance: 'rfc9110' });
  const { etag } = (await get(port, '/a.txt')).headers as { etag: string };
  const rows: [Record<string, string>, number, string?][] = [
    [{ Range: 'bytes=-30' }, 206],
    [{ Range: 'bytes=abc' }, 200],
    [{ Range: 'bytes=5-2' }, 200],
    [{ Range: 'BYTES=0-1' }, 206],
    [{ Range: 'bytes=0-1' }, 200, 'HEAD'],
    [{ Range: 'bytes=0-1', 'If-Range': etag }, 200],
    [{ Range: 'bytes=20-' }, 416],
    [{ 'If-Match': etag }, 412],
    [{ 'If-None-Match': etag, 'Cache-Control': 'no-cache' }, 304],
  ];
  for (const [headers, status, method] of rows) {
    t.is((await get(port, '/a.txt', headers, method)).status, status, JSON.stringify(headers));
  }
});

serial('the method of a response is on the reply and in the statistics', async (t) => {
  const root = site(t);
  patternFile(root, 'big', 4 * 1024 * 1024);
  const methods: (ResponseMethod | null)[] = [];
  const { app, port } = await serve(t, { root }, (app) => {
    app.get('/json', async () => ({}));
    app.addHook('onResponse', async (_request, reply) => void methods.push(reply.zerosendMethod));
  });
  await get(port, '/a.txt');
  await get(port, '/big');
  await get(port, '/a.txt', {}, 'HEAD');
  await get(port, '/a.txt', { 'If-None-Match': '*' });
  await get(port, '/json');
  await app.inject('/a.txt');
  await until(() => methods.length === 6);
  t.deepEqual(methods, ['read-write', 'sendfile', 'none', 'none', null, 'stream']);
  const { cache, frontDoor, ...stats } = app.zerosend.stats();
  t.is(cache?.rejected, 1, 'one is too large for the default cache');
  t.is(frontDoor, null);
  t.deepEqual(stats, {
    responses: 5,
    bytes: 10 + 4 * 1024 * 1024 + 10,
    aborted: 0,
    methods: {
      'read-write': { responses: 1, bytes: 10 },
      sendfile: { responses: 1, bytes: 4 * 1024 * 1024 },
      none: { responses: 2, bytes: 0 },
      stream: { responses: 1, bytes: 10 },
    },
  });
  const forced = await serve(t, { root, method: 'sendfile' });
  await get(forced.port, '/a.txt');
  t.deepEqual(Object.keys(forced.app.zerosend.stats().methods), ['sendfile']);
});

serial('a body that an onSend hook returns has a path, a method, and is closed', async (t) => {
  const root = site(t);
  const seen: unknown[] = [];
  const { app, port } = await serve(t, { root }, (app) => {
    app.addHook('onSend', async (_request, _reply, payload) => {
      seen.push((payload as { path?: string }).path);
      return payload;
    });
    app.addHook('onResponse', async (_request, reply) => void seen.push(reply.zerosendMethod));
  });
  t.is((await get(port, '/a.txt')).body.toString(), '0123456789');
  await until(() => seen.length === 2);
  t.deepEqual(seen, [join(root, 'a.txt'), 'read-write']);
  t.is(app.zerosend.stats().responses, 1);
});

serial('callbacks, half-closed clients and large files together', async (t) => {
  const root = site(t);
  patternFile(root, 'big', 8 * 1024 * 1024);
  const wait = () => new Promise<void>((resolve) => setTimeout(resolve, 20));
  const { port } = await serve(t, { root, onFile: wait, allowedPath: () => true, etag: 'content' });
  const [response] = parseResponses(await exchange(port, 'GET /big HTTP/1.1\r\nHost: x\r\n\r\n', true));
  t.is(sha256(response?.body as Buffer), sha256(pattern(8 * 1024 * 1024)));
});

serial('1,000 responses that are 304, refused or aborted leave no descriptors or handles', async (t) => {
  const root = site(t);
  patternFile(root, 'big', 1024 * 1024);
  const { app, port } = await serve(t, {
    root,
    etag: 'content',
    allowedPath: (path) => path !== '/sub/b.txt',
    onFile(path) {
      if (path.endsWith('style.css')) throw new Error('no');
    },
  });
  await get(port, '/a.txt');
  const before = openDescriptors();
  const requests = Array.from({ length: 1000 }, (_, at) => at).values();
  const client = async () => {
    for (const at of requests) {
      if (at % 4 === 0) t.is((await get(port, '/a.txt', { 'If-None-Match': '*' })).status, 304);
      else if (at % 4 === 1) t.is((await get(port, '/sub/b.txt')).status, 404);
      else if (at % 4 === 2) t.is((await get(port, '/assets/style.css')).status, 500);
      else await app.inject('/big').then(({ rawPayload }) => t.is(rawPayload.length, 1024 * 1024));
    }
  };
  await Promise.all(Array.from({ length: 16 }, client));
  await settled(t, before);
  t.is(app.zerosend.stats().aborted, 0);
});
