/** The plugin over HTTP connections. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { Agent, get as httpGet, type IncomingMessage } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { get as httpsGet } from 'node:https';
import { connect } from 'node:net';
import { join, relative } from 'node:path';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';

import compress from '@fastify/compress';
import test, { type ExecutionContext } from 'ava';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyServerOptions } from 'fastify';
import fastifyStatic, { type FastifyStaticOptions } from 'zerosend/fastify';

import { openDescriptors, pattern, patternFile, scratch, settled, sha256, until } from './support/files.js';
import { certificate } from './support/tls.js';
import { serialTestWith } from './support/tools.js';
import { exchange, get, parseResponses, portOf, readAll, readToClose } from './support/wire.js';

const serial = test.serial;
const MiB = 1024 * 1024;

/** A directory with various files. */
function site(t: ExecutionContext): string {
  const root = scratch(t);
  writeFileSync(join(root, 'index.html'), '<h1>home</h1>');
  writeFileSync(join(root, 'a.txt'), 'hello world');
  writeFileSync(join(root, 'empty.css'), '');
  writeFileSync(join(root, 'with space & ünïcode.txt'), 'odd name');
  writeFileSync(join(root, '100%.txt'), 'percent');
  mkdirSync(join(root, 'sub'));
  writeFileSync(join(root, 'sub', 'index.html'), 'sub index');
  mkdirSync(join(root, 'bare'));
  return root;
}

async function serve(
  t: ExecutionContext,
  options: FastifyStaticOptions,
  server: FastifyServerOptions = {},
  prepare?: (app: FastifyInstance) => unknown,
): Promise<{ app: FastifyInstance; port: number }> {
  const app = fastify({ forceCloseConnections: false, ...server } as FastifyServerOptions) as FastifyInstance;
  await prepare?.(app);
  await app.register(fastifyStatic, options);
  await app.listen({ port: 0, host: '127.0.0.1' });
  t.teardown(() => app.close());
  return { app, port: portOf(app.server) };
}

serial('GET and HEAD of a file return the same status and headers', async (t) => {
  const root = site(t);
  const { port } = await serve(t, { root });
  const stat = statSync(join(root, 'a.txt'));
  const full = await get(port, '/a.txt');
  t.is(full.status, 200);
  t.is(full.body.toString(), 'hello world');
  const wanted = {
    'accept-ranges': 'bytes',
    'cache-control': 'public, max-age=0',
    'content-length': '11',
    'content-type': 'text/plain; charset=utf-8',
    etag: `W/"${stat.size.toString(16)}-${stat.mtime.getTime().toString(16)}"`,
    'last-modified': stat.mtime.toUTCString(),
  };
  t.like(full.headers, wanted);
  const head = await get(port, '/a.txt', {}, 'HEAD');
  t.like(head.headers, wanted);
  t.is(head.body.length, 0);
  t.like(await get(port, '/empty.css'), { status: 200, body: Buffer.alloc(0) });
});

serial('names with spaces, non-ASCII letters and percent signs, indexes, and missing files', async (t) => {
  const { port } = await serve(t, { root: site(t), prefix: '/files' });
  t.is(
    (await get(port, `/files/${encodeURIComponent('with space & ünïcode.txt')}`.replace('%26', '&'))).body.toString(),
    'odd name',
  );
  t.is((await get(port, '/files/100%25.txt')).body.toString(), 'percent');
  t.is((await get(port, '/files/')).body.toString(), '<h1>home</h1>');
  t.is((await get(port, '/files/sub')).body.toString(), 'sub index');
  t.is((await get(port, '/files/sub/')).body.toString(), 'sub index');
  for (const path of ['/files/nope', '/files/bare', '/files/bare/', '/files/a.txt/', '/files/a.txt/x', '/a.txt']) {
    const { status, body } = await get(port, path);
    t.is(status, 404, path);
    t.deepEqual(JSON.parse(body.toString()), {
      message: `Route GET:${path} not found`,
      error: 'Not Found',
      statusCode: 404,
    });
  }
});

serial('non-canonical paths are forbidden, and no error contains a path of the server', async (t) => {
  const root = site(t);
  const sibling = `${root}-sibling`;
  mkdirSync(sibling);
  t.teardown(() => execFileSync('rm', ['-r', sibling]));
  writeFileSync(join(sibling, 'secret'), 'secret');
  const { port } = await serve(t, { root });
  for (const path of [
    '/../a.txt',
    '/%2e%2e/a.txt',
    '/sub/../a.txt',
    '/./a.txt',
    '//a.txt',
    '/sub//index.html',
    '/a%5c.txt',
    '/a%00.txt',
    `/..${sibling.slice(sibling.lastIndexOf('/'))}/secret`,
  ]) {
    const { status, body } = await get(port, path);
    t.is(status, 403, path);
    t.false(body.includes(root) || body.includes('secret'), path);
  }
  t.is((await get(port, '/%zz')).status, 400);
  t.is((await get(port, '/sub%2findex.html')).status, 404, 'an encoded slash is not a separator');
});

serial('conditional requests and ranges', async (t) => {
  const root = site(t);
  const { port } = await serve(t, { root });
  const { headers } = await get(port, '/a.txt');
  const etag = headers.etag as string;
  const modified = headers['last-modified'] as string;
  const earlier = new Date(Date.parse(modified) - 60_000).toUTCString();
  const cases: [Record<string, string>, number, string, object?][] = [
    [{ 'If-None-Match': etag }, 304, ''],
    [{ 'If-None-Match': '*' }, 304, ''],
    [{ 'If-None-Match': '"other"', 'If-Modified-Since': modified }, 200, 'hello world'],
    [{ 'If-Modified-Since': modified }, 304, ''],
    [{ 'If-Modified-Since': earlier }, 200, 'hello world'],
    [{ 'If-Match': '"other"' }, 412, '*'],
    [{ 'If-Unmodified-Since': earlier }, 412, '*'],
    [{ Range: 'bytes=0-0' }, 206, 'h', { 'content-range': 'bytes 0-0/11', 'content-length': '1' }],
    [{ Range: 'bytes=-3' }, 206, 'rld', { 'content-range': 'bytes 8-10/11' }],
    [{ Range: 'bytes=6-' }, 206, 'world', { 'content-range': 'bytes 6-10/11' }],
    [{ Range: 'bytes=20-' }, 416, '*', { 'content-range': 'bytes */11' }],
    [{ Range: 'bytes=5-2' }, 416, '*', { 'content-range': 'bytes */11' }],
    [{ Range: 'items=0-1' }, 200, 'hello world'],
    [{ Range: 'bytes=0-1', 'If-Range': '"other"' }, 200, 'hello world'],
    [{ Range: 'bytes=0-1', 'If-Range': earlier }, 200, 'hello world'],
  ];
  for (const [fields, status, body, expected] of cases) {
    const response = await get(port, '/a.txt', fields);
    const name = JSON.stringify(fields);
    t.is(response.status, status, name);
    if (body !== '*') t.is(response.body.toString(), body, name);
    else t.is(JSON.parse(response.body.toString()).statusCode, status, name);
    if (expected !== undefined) t.like(response.headers, expected, name);
  }
});

serial('maxAge, immutable, and headers that can be disabled', async (t) => {
  const root = site(t);
  const { port } = await serve(t, {
    root,
    maxAge: '1d',
    immutable: true,
    etag: false,
    lastModified: false,
    acceptRanges: false,
  });
  const { headers } = await get(port, '/a.txt', { Range: 'bytes=0-0' });
  t.is(headers['cache-control'], 'public, max-age=86400, immutable');
  for (const name of ['etag', 'last-modified', 'accept-ranges', 'content-range']) t.false(name in headers, name);
  const bare = await serve(t, { root, cacheControl: false });
  t.false('cache-control' in (await get(bare.port, '/a.txt')).headers);
});

serial('reply.sendFile with other roots, options, a status, and in async handlers', async (t) => {
  const root = site(t);
  const { port } = await serve(t, { root, serve: false }, {}, (app) => {
    app.get('/plain', (_request, reply) => reply.sendFile('a.txt'));
    app.get('/async', async (_request, reply) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      return reply.sendFile('a.txt');
    });
    app.get('/other', (_request, reply) => reply.sendFile('index.html', join(root, 'sub')));
    app.get('/options', (_request, reply) => reply.sendFile('a.txt', { maxAge: 5000 }));
    app.get('/status', (_request, reply) => reply.code(201).header('x-own', 'yes').sendFile('a.txt'));
    app.get('/up', (_request, reply) => reply.sendFile('../a.txt'));
    app.get('/nope', (_request, reply) => reply.sendFile('nope'));
  });
  t.is((await get(port, '/plain')).body.toString(), 'hello world');
  t.is((await get(port, '/async')).body.toString(), 'hello world');
  t.is((await get(port, '/other')).body.toString(), 'sub index');
  t.is((await get(port, '/options')).headers['cache-control'], 'public, max-age=5');
  const status = await get(port, '/status');
  t.is(status.status, 201);
  t.is(status.headers['x-own'], 'yes');
  t.is((await get(port, '/up')).status, 403);
  t.is((await get(port, '/nope')).status, 404);
});

serial('invalid options fail at registration', async (t) => {
  const root = site(t);
  const cases: [object, string, RegExp][] = [
    [{}, 'FST_STATIC_INVALID_OPTION', /"root" option is required/],
    [{ root: 'relative' }, 'FST_STATIC_INVALID_OPTION', /absolute/],
    [{ root: join(root, 'a.txt') }, 'FST_STATIC_INVALID_OPTION', /directory/],
    [{ root: [] }, 'FST_STATIC_INVALID_OPTION', /one or more/],
    [{ root: [root, root] }, 'FST_STATIC_INVALID_OPTION', /duplicate/],
    [{ root: 42 }, 'FST_STATIC_INVALID_OPTION_VALUE', /string/],
    [{ root, setHeaders: 'x' }, 'FST_STATIC_INVALID_OPTION_VALUE', /function/],
    [{ root, index: 42 }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid index 42/],
    [{ root, dotfiles: 'hide' }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid dotfiles 'hide'.*allow, deny, ignore/],
    [{ root, method: 'magic' }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid method 'magic'/],
  ];
  for (const [options, code, message] of cases) {
    let error: NodeJS.ErrnoException | undefined;
    try {
      await fastify().register(fastifyStatic, options as FastifyStaticOptions);
    } catch (caught) {
      error = caught as NodeJS.ErrnoException;
    }
    t.is(error?.code, code, JSON.stringify(options));
    t.regex(error?.message as string, message);
  }
});

serial('64 keep-alive clients receive thousands of files completely', async (t) => {
  const root = join(process.cwd(), 'node_modules');
  const files: string[] = [];
  const walk = (directory: string) => {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      const path = join(directory, entry.name);
      if (entry.isDirectory()) walk(path);
      else if (entry.isFile() && files.length < 4000) files.push(path);
    }
  };
  walk(root);
  t.true(files.length > 2000);
  const { port } = await serve(t, { root });
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const next = files.values();
  let compared = 0;
  const client = async () => {
    for (const file of next) {
      const path = relative(root, file)
        .split('/')
        .map((segment) => encodeURI(segment).replace(/[?#]/g, encodeURIComponent))
        .join('/');
      const [response] = (await once(httpGet({ port, host: '127.0.0.1', path: `/${path}`, agent }), 'response')) as [
        IncomingMessage,
      ];
      const body = await readAll(response);
      if (response.statusCode !== 200 || !body.equals(readFileSync(file))) t.fail(file);
      compared += 1;
    }
  };
  await Promise.all(Array.from({ length: 64 }, client));
  agent.destroy();
  t.is(compared, files.length);
});

serial('pipelined responses of files, ranges, 304 and routes arrive in order', async (t) => {
  const root = site(t);
  patternFile(root, 'big', 3 * MiB);
  const { port } = await serve(t, { root }, {}, (app) => {
    app.get('/json', async () => ({ hello: 'world' }));
    app.get('/slow', async (_request, reply) => {
      await new Promise((resolve) => setTimeout(resolve, 50));
      return reply.sendFile('a.txt');
    });
  });
  const { etag } = (await get(port, '/a.txt')).headers;
  const requests = ['/slow', '/a.txt', '/big', '/json', '/big', '/slow', '/nope', '/sub/'].map(
    (path) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`,
  );
  requests.push(`GET /a.txt HTTP/1.1\r\nHost: x\r\nIf-None-Match: ${etag}\r\n\r\n`);
  requests.push('GET /big HTTP/1.1\r\nHost: x\r\nRange: bytes=1000-1999\r\n\r\n');
  requests.push('GET /big HTTP/1.1\r\nHost: x\r\nRange: bytes=-1\r\nConnection: close\r\n\r\n');
  const responses = parseResponses(await exchange(port, requests.join('')));
  t.deepEqual(
    responses.map(({ status }) => status),
    [200, 200, 200, 200, 200, 200, 404, 200, 304, 206, 206],
  );
  const [slow, text, big, json, bigAgain, , , index, , range, last] = responses.map(({ body }) => body) as Buffer[];
  t.is(slow?.toString(), 'hello world');
  t.is(text?.toString(), 'hello world');
  t.is(json?.toString(), '{"hello":"world"}');
  t.is(index?.toString(), 'sub index');
  const wanted = pattern(3 * MiB);
  t.is(sha256(big as Buffer), sha256(wanted));
  t.is(sha256(bigAgain as Buffer), sha256(wanted));
  t.deepEqual(range, wanted.subarray(1000, 2000));
  t.deepEqual(last, wanted.subarray(-1));
});

serial('a client that half-closes after its requests receives all responses', async (t) => {
  const root = site(t);
  patternFile(root, 'big', 16 * MiB);
  const { port } = await serve(t, { root });
  const one = parseResponses(await exchange(port, 'GET /big HTTP/1.1\r\nHost: x\r\n\r\n', true));
  t.is(sha256((one[0] as { body: Buffer }).body), sha256(pattern(16 * MiB)));
  const two = parseResponses(await exchange(port, 'GET /big HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(2), true));
  t.is(two.length, 2);
  for (const { body } of two) t.is(sha256(body), sha256(pattern(16 * MiB)));
});

serial('app.close() waits for a transfer', async (t) => {
  const root = site(t);
  patternFile(root, 'big', 16 * MiB);
  const { app, port } = await serve(t, { root });
  const socket = connect({ port, host: '127.0.0.1' });
  socket.write('GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  await once(socket, 'readable');
  const closing = app.close();
  const received = readAll(socket);
  const [response] = parseResponses(await received);
  t.is(sha256(response?.body as Buffer), sha256(pattern(16 * MiB)));
  await closing;
});

serial('truncating a file during a download closes the connection before the next response', async (t) => {
  const root = site(t);
  const file = patternFile(root, 'big', 64 * MiB);
  const before = openDescriptors();
  const { port, app } = await serve(t, { root });
  const socket = connect({ port, host: '127.0.0.1' });
  socket.on('error', () => {});
  socket.write('GET /big HTTP/1.1\r\nHost: x\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n');
  await once(socket, 'readable');
  truncateSync(file, 20 * MiB);
  const { bytes: all, reset } = await readToClose(socket);
  t.true(reset, 'an incomplete body ends with a reset');
  const body = all.subarray(all.indexOf('\r\n\r\n') + 4);
  t.true(body.length <= 20 * MiB);
  t.is(sha256(body), sha256(pattern(64 * MiB).subarray(0, body.length)), 'the bytes are those of the file');
  await app.close();
  await settled(t, before);
});

serial(
  'truncating a file during a download as a stream closes the connection, also if the client disconnects',
  async (t) => {
    const root = site(t);
    const file = patternFile(root, 'big', 64 * MiB);
    const before = openDescriptors();
    const setHeaders = (reply: FastifyReply) => void reply.removeHeader('content-length');
    const { port, app } = await serve(t, { root, setHeaders });
    for (const leaves of [true, false]) {
      const socket = connect({ port, host: '127.0.0.1' });
      socket.on('error', () => {});
      socket.write('GET /big HTTP/1.1\r\nHost: x\r\n\r\n');
      await once(socket, 'readable');
      if (leaves) {
        socket.destroy();
        await until(() => !openDescriptors().includes(file), 5000, 'that the file is closed');
      } else {
        truncateSync(file, 20 * MiB);
        const { bytes: all } = await readToClose(socket);
        t.true(all.length < 21 * MiB);
        t.false(all.subarray(-7).equals(Buffer.from('\r\n0\r\n\r\n')), 'the last chunk is not sent');
      }
    }
    const next = await exchange(port, 'GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    t.regex(next.toString(), /^HTTP\/1\.1 200 .*\r\n\r\nb\r\n.{11}\r\n0\r\n\r\n$/s);
    await app.close();
    await settled(t, before);
  },
);

serial('1,000 aborted downloads, 200 of them by RST, leave no descriptors or handles', async (t) => {
  const root = site(t);
  patternFile(root, 'big', 16 * MiB);
  const { port } = await serve(t, { root });
  await get(port, '/a.txt');
  const before = openDescriptors();
  let done = 0;
  const client = async (at: number) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.on('error', () => {});
    socket.write('GET /big HTTP/1.1\r\nHost: x\r\n\r\n');
    const stopAt = Math.floor(Math.random() * 4 * MiB);
    let have = 0;
    for await (const chunk of socket) {
      have += (chunk as Buffer).length;
      if (have >= stopAt) break;
    }
    if (at % 5 === 0) socket.resetAndDestroy();
    else socket.destroy();
    done += 1;
  };
  const numbers = Array.from({ length: 1000 }, (_, at) => at).values();
  await Promise.all(
    Array.from({ length: 32 }, async () => {
      for (const at of numbers) await client(at);
    }),
  );
  t.is(done, 1000);
  await settled(t, before);
  t.is((await get(port, '/a.txt')).status, 200);
});

serial('HTTPS, HTTP/2, inject, a compressor and an onSend hook return the same bytes', async (t) => {
  const root = site(t);
  patternFile(root, 'big', 2 * MiB + 1);
  writeFileSync(join(root, 'text.txt'), 'compress me '.repeat(10_000));
  const wanted = sha256(pattern(2 * MiB + 1));
  const tls = certificate(t);
  const https = await serve(t, { root }, { https: tls } as FastifyServerOptions);
  const [overTls] = (await once(
    httpsGet({ port: https.port, host: '127.0.0.1', path: '/big', rejectUnauthorized: false }),
    'response',
  )) as [IncomingMessage];
  t.is(sha256(await readAll(overTls)), wanted);

  const http2 = await serve(t, { root }, { http2: true } as FastifyServerOptions);
  const session = connectHttp2(`http://127.0.0.1:${http2.port}`);
  t.is(sha256(await readAll(session.request({ ':path': '/big' }))), wanted);
  const part = session.request({ ':path': '/big', range: 'bytes=5-9' });
  t.deepEqual(await readAll(part), pattern(100).subarray(5, 10));
  session.close();
  // With an async callback the socket is kept half-open, which does not apply to HTTP/2.
  const watched = await serve(t, { root, onFile: async () => {} }, { http2: true } as FastifyServerOptions);
  const second = connectHttp2(`http://127.0.0.1:${watched.port}`);
  t.is(sha256(await readAll(second.request({ ':path': '/big' }))), wanted);
  second.close();

  const { app } = await serve(t, { root });
  const injected = await app.inject('/big');
  t.is(sha256(injected.rawPayload), wanted);
  t.is((await app.inject({ url: '/big', headers: { range: 'bytes=5-9' } })).statusCode, 206);
  t.is((await app.inject({ url: '/big', method: 'HEAD' })).headers['content-length'], String(2 * MiB + 1));

  const compressed = await serve(t, { root }, {}, (instance) => instance.register(compress, { global: true }));
  const gzip = await compressed.app.inject({ url: '/text.txt', headers: { 'accept-encoding': 'gzip' } });
  t.is(gunzipSync(gzip.rawPayload).toString(), 'compress me '.repeat(10_000));
  const raw = await exchange(compressed.port, 'GET /text.txt HTTP/1.0\r\nAccept-Encoding: br\r\n\r\n');
  t.is(brotliDecompressSync(raw.subarray(raw.indexOf('\r\n\r\n') + 4)).toString(), 'compress me '.repeat(10_000));

  const seen: string[] = [];
  const hooked = await serve(t, { root }, {}, (instance) => {
    instance.addHook('onSend', async (_request, reply, payload) => {
      seen.push((payload as { path: string }).path);
      reply.header('x-hook', 'yes');
    });
    instance.addHook('onResponse', async (_request, reply) => {
      seen.push(`done ${reply.statusCode}`);
    });
  });
  const response = await get(hooked.port, '/big');
  t.is(response.headers['x-hook'], 'yes');
  t.is(sha256(response.body), wanted);
  await until(() => seen.length === 2);
  t.deepEqual(seen, [join(root, 'big'), 'done 200']);
});

serial('onResponse, setHeaders and counters see a file like any other response', async (t) => {
  const root = site(t);
  const seen: unknown[] = [];
  const { port } = await serve(
    t,
    {
      root,
      setHeaders: (reply, path, stat) =>
        void reply.header('x-file', `${relative(root, path)} ${stat.size}`).header('etag', '"mine"'),
    },
    {},
    (app) => app.addHook('onResponse', async (request, reply) => void seen.push([request.url, reply.statusCode])),
  );
  const response = await get(port, '/a.txt');
  t.is(response.headers['x-file'], 'a.txt 11');
  t.is(response.headers.etag, '"mine"', 'headers set by setHeaders are kept');
  await get(port, '/a.txt', {}, 'HEAD');
  await until(() => seen.length === 2);
  t.deepEqual(seen, [
    ['/a.txt', 200],
    ['/a.txt', 200],
  ]);
});

serial('a Unix socket, HTTP/1.0, and Connection: close', async (t) => {
  const root = site(t);
  const path = join(scratch(t), 'socket');
  const app = fastify();
  await app.register(fastifyStatic, { root });
  await app.listen({ path });
  t.teardown(() => app.close());
  t.is((await get({ path }, '/a.txt')).body.toString(), 'hello world');
  const old = (await exchange({ path }, 'GET /a.txt HTTP/1.0\r\n\r\n')).toString();
  t.regex(old, /^HTTP\/1\.1 200 OK\r\n[^]*Connection: close\r\n\r\nhello world$/);
});

serial('hard links, symbolic links that leave the root, and special files', async (t) => {
  const root = site(t);
  const outside = patternFile(scratch(t), 'outside', 10);
  symlinkSync(outside, join(root, 'link'));
  symlinkSync('/does/not/exist', join(root, 'dangling'));
  linkSync(join(root, 'a.txt'), join(root, 'hard'));
  execFileSync('mkfifo', [join(root, 'fifo')]);
  const { port } = await serve(t, { root });
  t.deepEqual((await get(port, '/link')).body, pattern(10));
  t.is((await get(port, '/dangling')).status, 404);
  t.is((await get(port, '/hard')).body.toString(), 'hello world');
  t.not((await get(port, '/fifo')).status, 200);
});

serialTestWith('strace')(
  'strace: a large file is sent with sendfile, a small one with at most two calls',
  async (t) => {
    const root = site(t);
    patternFile(root, 'big', 16 * MiB);
    patternFile(root, 'small', 1024);
    const log = join(scratch(t), 'trace');
    const program = `import fastify from 'fastify'; import plugin from 'zerosend/fastify';
    const app = fastify(); await app.register(plugin, { root: process.argv[1] });
    app.get('/quit', () => process.exit(0)); await app.listen({ port: 0, host: '127.0.0.1' }); console.log(app.server.address().port);`;
    const child = spawn('strace', [
      '-f',
      '-qq',
      '-o',
      log,
      '-e',
      'trace=sendfile,sendmsg,sendto,write,writev,splice',
      process.execPath,
      '--input-type=module',
      '-e',
      program,
      root,
    ]);
    t.teardown(() => child.kill('SIGKILL'));
    const [line] = await once(child.stdout, 'data');
    const port = Number(String(line));
    t.is(sha256((await get(port, '/big')).body), sha256(pattern(16 * MiB)));
    const markBig = readFileSync(log, 'utf8').length;
    t.deepEqual((await get(port, '/small')).body, pattern(1024));
    const exit = once(child, 'exit');
    await get(port, '/quit').catch(() => {});
    await exit;
    const trace = readFileSync(log, 'utf8');
    const sent = [...trace.slice(0, markBig).matchAll(/sendfile\(.*\) = (\d+)/g)].reduce(
      (sum, match) => sum + Number(match[1]),
      0,
    );
    t.true(sent >= 0.95 * 16 * MiB, `sendfile carried ${sent} bytes`);
    const small = trace
      .slice(markBig)
      .split('\n')
      .filter((call) => / = 1[0-9]{3}$/.test(call) && /send|write/.test(call));
    t.true(small.length >= 1 && small.length <= 2, small.join('\n'));
  },
);
