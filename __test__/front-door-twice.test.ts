/**
 * The behavior of applications with and without the front door: each test runs twice and must have the same results.
 *
 * Each test gets an application that is not listening yet. In one of the runs, its requests pass through the front door.
 */
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import rateLimit from '@fastify/rate-limit';
import websocket from '@fastify/websocket';
import anyTest, { type ExecutionContext } from 'ava';
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify';
import { WebSocket } from 'ws';
import fastifyStatic, { frontDoor } from 'zerosend/fastify';

import { openDescriptors, pattern, patternFile, scratch, settled, sha256, until } from './support/files.js';
import { exchange, get, parseResponses, portOf, readAll } from './support/wire.js';

interface Given {
  /** Creates an application with the files of `root` below /static/, which does not listen yet. */
  make(options?: FastifyServerOptions): FastifyInstance;
  root: string;
}

/** More than the buffers of two sockets can hold. */
const HUGE = 40_000_000;

function twice(title: string, body: (t: ExecutionContext, given: Given) => Promise<void>): void {
  for (const withFrontDoor of [true, false]) {
    anyTest.serial(`${title}, ${withFrontDoor ? 'with' : 'without'} the front door`, async (t) => {
      const root = scratch(t);
      writeFileSync(join(root, 'a.txt'), 'the file a');
      writeFileSync(join(root, 'empty.txt'), '');
      writeFileSync(join(root, '.dot'), 'dot');
      mkdirSync(join(root, 'sub'));
      writeFileSync(join(root, 'sub', 'index.html'), '<h1>sub</h1>');
      writeFileSync(join(root, 'sub', 'page.html'), '<h1>page</h1>');
      mkdirSync(join(root, 'bare'));
      patternFile(root, 'large.bin', 5_000_000);
      const make = (options: FastifyServerOptions = {}) => {
        const mount = { root, prefix: '/static/', dotfiles: 'deny' as const, extensions: ['html'] };
        const app = withFrontDoor ? Fastify({ ...options, serverFactory: frontDoor(mount) }) : Fastify(options);
        if (!withFrontDoor) app.register(fastifyStatic, { ...mount, decorateReply: false });
        t.teardown(async () => {
          app.server.closeAllConnections();
          await app.close();
        });
        return app;
      };
      await body(t, { make, root });
    });
  }
}

async function listen(app: FastifyInstance): Promise<number> {
  await app.listen({ port: 0, host: '127.0.0.1' });
  return portOf(app.server);
}

const head = (method: string, path: string, fields = '') => `${method} ${path} HTTP/1.1\r\nHost: h\r\n${fields}\r\n`;

twice('files, errors and refusals', async (t, { make }) => {
  const port = await listen(make());
  const seen: unknown[] = [];
  const paths = [
    'a.txt',
    'a%2etxt',
    'empty.txt',
    'sub/',
    'sub',
    'sub/page',
    'bare/',
    'none',
    'none.txt?query=1',
    '.dot',
    '../package.json',
    '%2e%2e/x',
    'sub//page.html',
    'a.txt%00',
    'a.txt/',
    '%',
    '%zz',
    'sub\\page.html',
  ];
  for (const path of paths) {
    for (const method of ['GET', 'HEAD', 'POST', 'OPTIONS']) {
      const { status, headers, body } = await get(port, `/static/${path}`, {}, method);
      const { date, 'last-modified': modified, etag, ...others } = headers;
      t.truthy(date);
      seen.push([method, path, status, others, body.toString(), modified !== undefined, etag !== undefined]);
    }
  }
  const { headers } = await get(port, '/static/a.txt');
  for (const conditions of [
    { 'if-none-match': headers.etag as string },
    { 'if-modified-since': headers['last-modified'] as string },
    { 'if-match': '"other"' },
    { range: 'bytes=1-3' },
    { range: 'bytes=100-' },
    { range: 'bytes=0-1,3-4' },
  ]) {
    const { status, headers: fields, body } = await get(port, '/static/a.txt', conditions as Record<string, string>);
    const { date: _, 'last-modified': __, etag: ___, ...others } = fields;
    seen.push([conditions, status, others, body.toString()]);
  }
  // The result of the first run is expected of the second.
  const text = JSON.stringify(seen.map((entry) => normal(entry)));
  expected ??= text;
  t.deepEqual(JSON.parse(text), JSON.parse(expected));
});
let expected: string | undefined;

/** Entity tags depend on the times of the files. */
function normal(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value)
      .replace(/W\/\\"[^"]+"/g, 'tag')
      .replace(/\w{3}, \d\d [^"]* GMT/g, 'date'),
  );
}

twice('hooks run, and errors of routes are handled', async (t, { make }) => {
  const app = make();
  const order: string[] = [];
  app.addHook('onRequest', async (request) => void order.push(`onRequest ${request.url}`));
  app.addHook('preHandler', async () => void order.push('preHandler'));
  app.addHook('onSend', async (_request, reply, payload) => {
    reply.header('x-hook', 'sent');
    return payload;
  });
  const responded: string[] = [];
  app.addHook('onResponse', async (request, reply) => void responded.push(`${request.url} ${reply.statusCode}`));
  app.get('/ok', async () => ({ ok: true }));
  app.get('/fails', async () => {
    throw Object.assign(new Error('on purpose'), { statusCode: 418 });
  });
  app.setErrorHandler((error, _request, reply) => reply.code(418).send({ caught: (error as Error).message }));
  app.setNotFoundHandler((request, reply) => reply.code(404).send({ missing: request.url }));
  const port = await listen(app);

  const ok = await get(port, '/ok');
  t.is(ok.headers['x-hook'], 'sent');
  t.deepEqual(JSON.parse(ok.body.toString()), { ok: true });
  const fails = await get(port, '/fails');
  t.is(fails.status, 418);
  t.deepEqual(JSON.parse(fails.body.toString()), { caught: 'on purpose' });
  const missing = await get(port, '/static/none.txt');
  t.is(missing.status, 404);
  t.deepEqual(JSON.parse(missing.body.toString()), { missing: '/static/none.txt' });
  await until(() => responded.length === 3);
  t.deepEqual(order.slice(0, 2), ['onRequest /ok', 'preHandler']);
  t.deepEqual(responded, ['/ok 200', '/fails 418', '/static/none.txt 404']);
});

twice('all spellings of routes below the prefix reach the application', async (t, { make, root }) => {
  mkdirSync(join(root, 'private'));
  writeFileSync(join(root, 'private', 'secret.txt'), 'secret');
  writeFileSync(join(root, 'config.json'), '{}');
  const app = make();
  app.get('/static/private/*', async (_request, reply) => reply.code(401).send('no'));
  app.get('/static/config.json', async () => 'made');
  const port = await listen(app);
  for (const path of ['private/secret.txt', '%70rivate/secret.txt', 'private%2fsecret.txt', 'private/x']) {
    const { status, body } = await get(port, `/static/${path}`);
    t.not(body.toString(), 'secret', path);
    t.true(status === 401 || status === 404, `${path} ${status}`);
  }
  t.is((await get(port, '/static/config.json')).body.toString(), 'made');
  t.is((await get(port, '/static/a.txt')).body.toString(), 'the file a');
});

twice('an upload of 100 MB is received completely', async (t, { make }) => {
  const app = make({ bodyLimit: 200_000_000 });
  app.addContentTypeParser('application/octet-stream', (_request, payload, done) => done(null, payload));
  app.post('/upload', async (request) => {
    const { createHash } = await import('node:crypto');
    const hash = createHash('sha256');
    for await (const chunk of request.body as NodeJS.ReadableStream) hash.update(chunk as Buffer);
    return hash.digest('hex');
  });
  const port = await listen(app);
  const bytes = pattern(100_000_000);
  for (const chunked of [false, true]) {
    const request = http.request({ port, method: 'POST', path: '/upload', agent: false });
    request.setHeader('content-type', 'application/octet-stream');
    if (!chunked) request.setHeader('content-length', bytes.length);
    request.end(bytes);
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    t.is((await readAll(response)).toString(), sha256(bytes));
  }
});

twice('a request with Expect: 100-continue is continued', async (t, { make }) => {
  const app = make();
  app.post('/echo', async (request) => request.body as string);
  const port = await listen(app);
  const request = http.request({ port, method: 'POST', path: '/echo', agent: false });
  request.setHeader('content-type', 'text/plain');
  request.setHeader('expect', '100-continue');
  request.flushHeaders();
  await once(request, 'continue');
  request.end('after continue');
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  t.is((await readAll(response)).toString(), 'after continue');
});

twice('server-sent events are delivered', async (t, { make }) => {
  const app = make();
  app.get('/events', (_request, reply) => {
    reply.hijack();
    reply.raw.writeHead(200, { 'content-type': 'text/event-stream' });
    let count = 0;
    const timer = setInterval(() => {
      reply.raw.write(`data: ${++count}\n\n`);
      if (count === 3) {
        clearInterval(timer);
        reply.raw.end();
      }
    }, 10);
  });
  const port = await listen(app);
  const response = await fetch(`http://127.0.0.1:${port}/events`);
  t.is(await response.text(), 'data: 1\n\ndata: 2\n\ndata: 3\n\n');
});

twice('@fastify/websocket works, also after a file on the same connection', async (t, { make }) => {
  const app = make();
  await app.register(websocket);
  app.get('/socket', { websocket: true }, (socket) => {
    socket.on('message', (message: Buffer) => socket.send(`got ${message}`));
  });
  const port = await listen(app);
  const socket = new WebSocket(`ws://127.0.0.1:${port}/socket`);
  await once(socket, 'open');
  socket.send('one');
  const [answer] = (await once(socket, 'message')) as [Buffer];
  t.is(answer.toString(), 'got one');
  socket.close();
  await once(socket, 'close');

  const raw = net.connect(port, '127.0.0.1');
  const fields = 'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n';
  let received = '';
  raw.on('data', (chunk) => {
    received += chunk;
  });
  raw.write(head('GET', '/static/a.txt'));
  // Not pipelined: Node does not handle an upgrade while another response is pending.
  await until(() => received.includes('the file a'));
  raw.write(head('GET', '/socket', `${fields}Sec-WebSocket-Key: ${'a'.repeat(22)}==\r\n`));
  await until(() => received.includes('101 Switching Protocols'));
  raw.destroy();
});

twice('CONNECT and other upgrades reach their listeners with the bytes after the head', async (t, { make }) => {
  const app = make();
  app.server.on('connect', (request: http.IncomingMessage, socket: net.Socket, rest: Buffer) => {
    socket.end(`HTTP/1.1 200 OK\r\n\r\n${request.url} ${rest}`);
  });
  const port = await listen(app);
  const answer = await exchange(port, 'CONNECT there:443 HTTP/1.1\r\nHost: there:443\r\n\r\nrest');
  t.is(answer.toString(), 'HTTP/1.1 200 OK\r\n\r\nthere:443 rest');
});

twice('@fastify/rate-limit counts by IP address', async (t, { make }) => {
  const app = make();
  await app.register(rateLimit, { max: 2, timeWindow: 60_000 });
  app.get('/limited', async (request) => request.ip);
  const port = await listen(app);
  const statuses: number[] = [];
  for (let count = 0; count < 4; count++) statuses.push((await get(port, '/limited')).status);
  t.deepEqual(statuses, [200, 200, 429, 429]);
});

twice('remote and local addresses', async (t, { make }) => {
  const app = make({ trustProxy: true });
  app.get('/addresses', async (request) => {
    const { remoteAddress, remotePort, localPort } = request.raw.socket;
    return { ip: request.ip, remoteAddress, remotePort, localPort };
  });
  const port = await listen(app);
  const client = net.connect(port, '127.0.0.1');
  await once(client, 'connect');
  client.end(head('GET', '/addresses', 'X-Forwarded-For: 10.1.2.3\r\nConnection: close\r\n'));
  const { localPort } = client;
  const [response] = parseResponses(await readAll(client));
  t.deepEqual(JSON.parse(response?.body.toString() ?? ''), {
    ip: '10.1.2.3',
    remoteAddress: '127.0.0.1',
    remotePort: localPort,
    localPort: port,
  });
});

twice('pipelined requests for files and routes are answered in order', async (t, { make }) => {
  const app = make();
  app.get('/n/:n', async (request) => {
    const { n } = request.params as { n: string };
    await sleep(n === '1' ? 30 : 0);
    return `route ${n}`;
  });
  const port = await listen(app);
  const requests = [
    head('GET', '/static/a.txt'),
    head('GET', '/static/large.bin'),
    head('HEAD', '/static/a.txt'),
    head('GET', '/n/1'),
    head('GET', '/static/a.txt'),
    head('GET', '/n/2'),
    head('GET', '/static/large.bin', 'Range: bytes=10-19\r\n'),
    head('GET', '/n/3', 'Connection: close\r\n'),
  ];
  const answers = parseResponses(await exchange(port, requests.join('')), [false, false, true]);
  const large = pattern(5_000_000);
  const bodies = answers.map(({ body }) => (body.length > 100 ? sha256(body) : body.toString('latin1')));
  t.deepEqual(bodies, [
    'the file a',
    sha256(large),
    '',
    'route 1',
    'the file a',
    'route 2',
    large.subarray(10, 20).toString('latin1'),
    'route 3',
  ]);
});

twice('heads sent byte by byte, and requests split into packets', async (t, { make }) => {
  const app = make();
  app.get('/route', async () => 'route');
  app.post('/echo', async (request) => request.body as string);
  const port = await listen(app);
  const text =
    head('GET', '/static/a.txt') +
    head('GET', '/route') +
    head('POST', '/echo', 'Content-Type: text/plain\r\nContent-Length: 5\r\n') +
    'hello' +
    head('GET', '/static/a.txt', 'Connection: close\r\n');
  const client = net.connect(port, '127.0.0.1');
  client.setNoDelay(true);
  const all = readAll(client);
  for (const byte of text) {
    client.write(byte);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const bodies = parseResponses(await all).map(({ body }) => body.toString());
  t.deepEqual(bodies, ['the file a', 'route', 'hello', 'the file a']);
});

twice('malformed, too long and incomplete requests', async (t, { make }) => {
  const port = await listen(make());
  const status = async (text: string, halfClose = false) =>
    /^HTTP\/1\.1 (\d+)/.exec((await exchange(port, text, halfClose)).toString('latin1'))?.[1];
  t.is(await status('\x16\x03\x01\x02\x00\x01\x00\r\n\r\n'), '400');
  t.is(await status('GET /static/a.txt HTTP/9.9\r\n\r\n'), '400');
  t.is(await status('GET /static/a.txt HTTP/1.1\r\n\r\n'), '400', 'a request without Host');
  t.is(await status(head('GET', '/static/a.txt', `X: ${'y'.repeat(20_000)}\r\n`)), '431');
  t.is(await status(head('GET', '/static/a.txt', 'Content-Length: 1\r\nTransfer-Encoding: chunked\r\n')), '400');
  t.is(await status('GET /static/a.txt HTTP/1.1\r\nHo', true), '400');
});

twice('a client that half-closes after its request receives the file', async (t, { make }) => {
  const port = await listen(make());
  const [file] = parseResponses(await exchange(port, head('GET', '/static/large.bin'), true));
  t.is(sha256(file?.body ?? Buffer.alloc(0)), sha256(pattern(5_000_000)));
});

twice('a request head that times out is answered with 408', async (t, { make }) => {
  const app = make({ http: { connectionsCheckingInterval: 50 } } as FastifyServerOptions);
  app.server.headersTimeout = 200;
  app.server.requestTimeout = 200;
  const port = await listen(app);
  for (const text of ['', 'GET /static/a.txt HTTP/1.1\r\n', 'POST /x HTTP/1.1\r\n']) {
    const answer = (await exchange(port, text)).toString();
    t.regex(answer, /^HTTP\/1\.1 408 /, text);
  }
});

twice('idle keep-alive connections are closed', async (t, { make }) => {
  const app = make({ keepAliveTimeout: 150 });
  app.get('/route', async () => 'route');
  const port = await listen(app);
  for (const path of ['/route', '/static/a.txt']) {
    const started = performance.now();
    const [response] = parseResponses(await exchange(port, head('GET', path)));
    t.is(response?.status, 200, path);
    t.regex(response?.headers.connection ?? '', /keep-alive/i);
    t.true(performance.now() - started >= 140, path);
  }
});

twice('close() waits for pending responses and refuses new connections', async (t, { make, root }) => {
  patternFile(root, 'huge.bin', HUGE);
  const app = make();
  let entered: () => void = () => {};
  const inside = new Promise<void>((resolve) => {
    entered = resolve;
  });
  app.get('/slow', async () => {
    entered();
    await sleep(200);
    return 'complete';
  });
  const port = await listen(app);
  const slow = get(port, '/slow');
  // A download that the client does not read yet.
  const download = net.connect(port, '127.0.0.1');
  download.pause();
  download.write(head('GET', '/static/huge.bin', 'Connection: close\r\n'));
  const idle = net.connect(port, '127.0.0.1');
  const ended = once(idle, 'close');
  idle.on('error', () => {});
  const response = once(idle, 'data');
  idle.write(head('GET', '/static/a.txt'));
  await Promise.all([inside, response]);
  await sleep(50);

  let closed = false;
  const closing = app.close().then(() => {
    closed = true;
  });
  await ended;
  await sleep(20);
  t.false(closed);
  await t.throwsAsync(once(net.connect(port, '127.0.0.1'), 'connect'), { code: 'ECONNREFUSED' });
  t.is((await slow).body.toString(), 'complete');
  await sleep(20);
  t.false(closed, 'close() waits for the download');
  const [complete] = parseResponses(await readAll(download));
  t.is(sha256(complete?.body ?? Buffer.alloc(0)), sha256(pattern(HUGE)));
  await closing;
  t.false(app.server.listening);
});

twice('closeAllConnections aborts pending responses', async (t, { make, root }) => {
  patternFile(root, 'huge.bin', HUGE);
  const app = make();
  const port = await listen(app);
  const clients = ['/static/huge.bin', '/static/huge.bin'].map((path) => {
    const client = net.connect(port, '127.0.0.1');
    client.on('error', () => {});
    client.pause();
    client.write(head('GET', path));
    return client;
  });
  await sleep(100);
  app.server.closeAllConnections();
  for (const client of clients) {
    const body = await readAll(client).catch(() => Buffer.alloc(0));
    t.true(body.length < HUGE);
  }
  t.is((await get(port, '/static/a.txt')).status, 200, 'the server still responds');
});

twice('listening, address(), getConnections() and maxConnections', async (t, { make }) => {
  const app = make();
  app.get('/route', async () => 'route');
  const dropped: unknown[] = [];
  app.server.on('drop', (data) => dropped.push(data));
  t.false(app.server.listening);
  t.is(app.server.address(), null);
  const port = await listen(app);
  t.true(app.server.listening);
  t.deepEqual(app.server.address(), { address: '127.0.0.1', family: 'IPv4', port });
  const count = () =>
    new Promise<number>((resolve, reject) =>
      app.server.getConnections((error, n) => (error ? reject(error) : resolve(n))),
    );
  t.is(await count(), 0);
  const clients: net.Socket[] = [];
  const open = async (path: string) => {
    const client = net.connect(port, '127.0.0.1');
    client.on('error', () => {});
    clients.push(client);
    client.write(head('GET', path));
    await once(client, 'data');
  };
  await open('/route');
  await open('/static/a.txt');
  await open('/static/a.txt');
  t.is(await count(), 3);
  app.server.maxConnections = 3;
  const one = net.connect(port, '127.0.0.1');
  one.on('error', () => {});
  t.is((await readAll(one).catch(() => Buffer.alloc(0))).length, 0);
  await until(() => dropped.length === 1);
  t.like(dropped[0], { remoteAddress: '127.0.0.1', localPort: port });
  for (const client of clients) client.destroy();
  for (let left = await count(); left > 0; left = await count()) await sleep(5);
  t.is((await get(port, '/static/a.txt')).status, 200);
});

twice('listens on a host name or a Unix socket, and refuses to listen twice', async (t, { make, root }) => {
  const named = make();
  await named.listen({ port: 0, host: 'localhost' });
  t.is((await fetch(`http://localhost:${portOf(named.server)}/static/a.txt`)).status, 200);
  await t.throwsAsync(named.listen({ port: 0 }), { any: true, code: 'FST_ERR_REOPENED_SERVER' });
  t.throws(() => named.server.listen(0), { code: 'ERR_SERVER_ALREADY_LISTEN' });

  const path = join(root, 'app.sock');
  const unix = make();
  unix.get('/route', async () => 'route');
  await unix.listen({ path });
  t.is(unix.server.address(), path);
  const [file] = parseResponses(await exchange({ path }, head('GET', '/static/a.txt', 'Connection: close\r\n')));
  t.is(file?.body.toString(), 'the file a');
  const [route] = parseResponses(await exchange({ path }, head('GET', '/route', 'Connection: close\r\n')));
  t.is(route?.body.toString(), 'route');

  const late = make();
  const address = named.server.address() as net.AddressInfo;
  await t.throwsAsync(late.listen({ port: address.port, host: address.address }), { code: 'EADDRINUSE' });
  await unix.close();
  await t.throwsAsync(once(net.connect(path), 'connect'), { code: 'ENOENT' });
});

twice('inject() works without a socket', async (t, { make }) => {
  const app = make();
  app.get('/route', async () => 'route');
  t.is((await app.inject('/route')).body, 'route');
  t.is((await app.inject('/static/a.txt')).body, 'the file a');
});

twice('clients that disconnect leave no descriptors', async (t, { make }) => {
  const app = make();
  app.get('/route', async () => 'route');
  const port = await listen(app);
  const before = openDescriptors();
  for (let round = 0; round < 100; round++) {
    const path = round % 2 === 0 ? '/static/large.bin' : '/route';
    const client = net.connect(port, '127.0.0.1');
    client.on('error', () => {});
    await once(client, 'connect');
    client.write(head('GET', path));
    if (round % 3 === 0) await once(client, 'data');
    if (round % 5 === 0) client.resetAndDestroy();
    else client.destroy();
  }
  await settled(t, before);
  t.is((await get(port, '/route')).status, 200);
});
