/** The front door: the requests it serves and hands off, its log, and its limits. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

import test, { type ExecutionContext } from 'ava';
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify';
import { FileCache, frontDoor as plainFrontDoor } from 'zerosend';
import { type FastifyFrontDoorOptions, frontDoor } from 'zerosend/fastify';

import { openDescriptors, patternFile, scratch, settled, until } from './support/files.js';
import { certificate } from './support/tls.js';
import { exchange, get, parseResponses, portOf } from './support/wire.js';

const head = (path: string, fields = '') => `GET ${path} HTTP/1.1\r\nHost: h\r\n${fields}\r\n`;

function files(t: ExecutionContext): string {
  const root = scratch(t);
  writeFileSync(join(root, 'a.txt'), 'the file a');
  mkdirSync(join(root, 'private'));
  writeFileSync(join(root, 'private', 'b.txt'), 'the file b');
  return root;
}

interface Line {
  level: number;
  msg: string;
  [key: string]: unknown;
}

/** An application with a front door, and the lines of its log. */
function make(t: ExecutionContext, door: FastifyFrontDoorOptions, options: FastifyServerOptions = {}) {
  const lines: Line[] = [];
  const stream = { write: (line: string) => void lines.push(JSON.parse(line) as Line) };
  const app = Fastify({ ...options, logger: { stream }, serverFactory: frontDoor(door) });
  t.teardown(async () => {
    app.server.closeAllConnections?.();
    await app.close();
  });
  return { app, lines };
}

async function listen(app: FastifyInstance): Promise<number> {
  await app.listen({ port: 0, host: '127.0.0.1' });
  return portOf(app.server);
}

const door = (app: FastifyInstance) => {
  const { frontDoor: counts } = app.zerosend.stats();
  if (counts === null) throw new Error('no front door');
  return counts;
};

test('files are served natively and other requests by the application; both are counted', async (t) => {
  const { app } = make(t, { root: files(t), prefix: '/static/', headers: { 'x-own': 'yes' } });
  app.get('/route', async () => 'route');
  const port = await listen(app);
  const file = await get(port, '/static/a.txt');
  t.is(file.headers['x-own'], 'yes');
  t.is(file.headers['content-type'], 'text/plain; charset=utf-8');
  t.like(door(app), { accepted: 1, requests: 1, handedOff: 0 });
  await get(port, '/route');
  t.is((await get(port, '/static/none')).status, 404);
  t.like(door(app), { accepted: 3, requests: 1, handedOff: 2 });
  t.is(app.zerosend.stats().responses, 0);
  // After a handoff the plugin answers the requests of the connection.
  const [, second] = parseResponses(
    await exchange(port, head('/route') + head('/static/a.txt', 'Connection: close\r\n')),
  );
  t.is(second?.headers['x-own'], 'yes');
  t.like(door(app), { requests: 1, handedOff: 3 });
  t.is(app.zerosend.stats().responses, 1);
});

test('the mount with the longest prefix serves a request', async (t) => {
  const [one, two] = [files(t), files(t)];
  writeFileSync(join(two, 'a.txt'), 'another a');
  const mounts = [
    { root: one, prefix: '/one/' },
    { root: two, prefix: '/one/two' },
  ];
  const { app, lines } = make(t, { mounts });
  const port = await listen(app);
  t.is((await get(port, '/one/a.txt')).body.toString(), 'the file a');
  t.is((await get(port, '/one/two/a.txt')).body.toString(), 'another a');
  t.is(door(app).requests, 2);
  t.deepEqual(
    lines.filter(({ level }) => level > 30),
    [],
  );
});

test('delegate, private, excludeRoutes and onMissing hand requests to Node', async (t) => {
  const root = files(t);
  const { app, lines } = make(t, {
    mounts: [
      { root, prefix: '/static/', private: true, onMissing: '404' },
      { root: join(root, 'private'), prefix: '/static/private/', delegate: true },
    ],
    excludeRoutes: '/static/:name.map',
  });
  app.addHook('onRequest', async (request, reply) => {
    if (request.url.includes('private')) return reply.code(401).send('unauthorized');
  });
  const port = await listen(app);
  const native = async (path: string, fields: Record<string, string> = {}) => {
    const before = door(app).requests;
    const { status } = await get(port, path, fields);
    return `${status} ${door(app).requests > before ? 'native' : 'node'}`;
  };
  t.is(await native('/static/a.txt'), '200 native');
  t.is(await native('/static/a.txt', { cookie: 'a=b' }), '200 node');
  t.is(await native('/static/a.txt', { authorization: 'Basic x' }), '200 node');
  t.is(await native('/static/none'), '404 native');
  t.is(await native('/static/x.map'), '404 node');
  for (const path of ['private/b.txt', '%70rivate/b.txt', 'PRIVATE/b.txt', 'private//b.txt', './private/b.txt']) {
    t.regex(await native(`/static/${path}`), /^40[134] node$/, path);
  }
  const [warning] = lines.filter(({ level }) => level === 40);
  t.deepEqual(warning?.hooks, ['onRequest']);
  t.is(lines.filter(({ level }) => level === 40).length, 1);
});

test('routes below a prefix are reported at the start', async (t) => {
  const { app, lines } = make(t, { root: files(t), prefix: '/static/' });
  app.get('/static/private/*', async () => 'route');
  app.get('/other', async () => 'other');
  app.post('/static/upload', async () => 'post');
  app.register(async (scope) => scope.get('/made', async () => 'made'), { prefix: '/static/deep' });
  const port = await listen(app);
  const warnings = lines.filter(({ level }) => level === 40);
  t.is(warnings.length, 1);
  t.deepEqual(warnings[0]?.routes, ['/static/private/*', '/static/deep/made']);
  t.is((await get(port, '/static/private/b.txt')).body.toString(), 'route');
  t.is((await get(port, '/static/deep/made')).body.toString(), 'made');
});

test('natively served files appear in the log of the application', async (t) => {
  const { app, lines } = make(t, { root: files(t), prefix: '/static/', log: true });
  app.get('/route', async () => 'route');
  const port = await listen(app);
  await get(port, '/route');
  await get(port, '/static/a.txt?q');
  await app.close();
  const [node, native] = lines.filter(({ msg }) => msg === 'request completed');
  t.deepEqual(Object.keys(native ?? {}).sort(), [...Object.keys(node ?? {}), 'req'].sort());
  t.like(native, { level: 30, reqId: 'req-2', res: { statusCode: 200 } });
  t.like(native?.req, { method: 'GET', url: '/static/a.txt?q', host: 'test', remoteAddress: '127.0.0.1' });
  t.true((native?.responseTime as number) > 0);
  const incoming = lines.find(({ msg }) => msg === 'incoming request');
  t.deepEqual(Object.keys(native?.req as object).sort(), Object.keys(incoming?.req as object).sort());
});

test('a plain http.Server gets a front door', async (t) => {
  const root = files(t);
  const server = http.createServer((request, response) => response.end(`node ${request.url}`));
  const standing = plainFrontDoor(server, {
    mounts: [
      { root, prefix: '/static/' },
      { root, prefix: '/delegated/', delegate: true },
    ],
  });
  for (let round = 0; round < 2; round++) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const port = portOf(server);
    t.is((await get(port, '/static/a.txt')).body.toString(), 'the file a');
    t.like(standing.stats(), { requests: 1, handedOff: 0 });
    t.is((await get(port, '/static/none?q')).body.toString(), 'node /static/none?q');
    t.is((await get(port, '/delegated/a.txt')).body.toString(), 'node /delegated/a.txt');
    const [first, second, third] = parseResponses(
      await exchange(port, head('/x') + head('/static/a.txt') + head('/static/no', 'Connection: close\r\n')),
    );
    t.is(first?.body.toString(), 'node /x');
    t.is(second?.body.toString(), 'the file a');
    t.is(third?.body.toString(), 'node /static/no');
    t.like(standing.stats(), { requests: 1, handedOff: 3 });
    server.close();
    await once(server, 'close');
    t.like(standing.stats(), { requests: 1, connections: 0 });
  }
});

test('TLS disables the front door with one warning', async (t) => {
  const root = files(t);
  const { app, lines } = make(t, { root, prefix: '/static/' }, { https: certificate(t) } as FastifyServerOptions);
  const port = await listen(app);
  const request = https.get({ port, path: '/static/a.txt', rejectUnauthorized: false, agent: false });
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  t.is(response.statusCode, 200);
  response.resume();
  t.is(lines.filter(({ msg }) => msg.includes('front door disabled')).length, 1);
  t.is(app.zerosend.stats().frontDoor, null);
});

test('invalid options are named with their value and a remedy', (t) => {
  const root = files(t);
  const server = http.createServer();
  const cases: [FastifyFrontDoorOptions, RegExp][] = [
    [{}, /missing root/],
    [{ root: [] }, /root .* at least one directory/],
    [{ root, prefix: 'static' }, /invalid prefix 'static': use a path that begins with a slash/],
    [{ root, prefix: '/:tenant/' }, /invalid prefix '\/:tenant\/': use a path without/],
    [{ root, mounts: [{ root }] }, /root cannot be combined with mounts/],
    [{ mounts: [] }, /invalid mounts \[Array\(0\)\]: use an array of mounts that is not empty/],
    [{ mounts: [{ root }, { root, prefix: '/' }] }, /duplicate prefix '\/': use one mount/],
    [{ root, queue: 0 }, /invalid queue 0: use an integer from 1 to 65535/],
    [{ root, workers: 1.5 }, /invalid workers 1.5/],
    [{ root, onMissing: '500' as '404' }, /invalid onMissing '500': use 'node' or '404'/],
    [{ root, limits: { headTimeout: 1 } as object }, /unknown limit 'headTimeout': use one of connections/],
    [
      { root, setHeaders: () => {} } as FastifyFrontDoorOptions,
      /setHeaders cannot be used with a front door, which runs no JavaScript/,
    ],
    [{ root, excludeRoutes: 'a' }, /invalid excludeRoutes 'a': use routes/],
    [{ root, method: 'teleport' as 'auto' }, /method/],
    [{ root, headers: { a: 1 as unknown as string } }, /invalid headers\['a'\] 1: use a string/],
  ];
  for (const [options, message] of cases) {
    t.throws(() => plainFrontDoor(server, options), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT', message });
  }
  t.throws(() => plainFrontDoor({} as http.Server, { root }), { message: /invalid server .*: use an http.Server/ });
});

test('a server that is already listening is refused', async (t) => {
  const server = http.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.throws(() => plainFrontDoor(server, { root: files(t) }), { message: /already listening/ });
  server.close();
});

test('a shared cache stays open when the front door closes', async (t) => {
  const cache = new FileCache();
  const { app } = make(t, { root: files(t), cache });
  const port = await listen(app);
  await get(port, '/a.txt');
  await get(port, '/a.txt');
  await app.close();
  t.true(cache.stats().hits + cache.stats().misses > 0);
  cache.close();
});

test('an unreferenced server does not keep the process alive, a listening one does', async (t) => {
  const script = (unref: boolean) => `
    import http from 'node:http';
    import { frontDoor } from 'zerosend';
    const server = http.createServer();
    frontDoor(server, { root: '/' });
    server.listen(0, '127.0.0.1', () => { ${unref ? 'server.unref()' : 'setTimeout(() => server.close(), 300)'} });
    process.on('exit', () => console.log(server.listening));`;
  const run = async (unref: boolean) => {
    const child = spawn(process.execPath, ['--input-type=module', '-e', script(unref)], {
      cwd: join(import.meta.dirname, '..'),
    });
    const lines: string[] = [];
    child.stdout.on('data', (chunk) => lines.push(String(chunk)));
    child.stderr.on('data', (chunk) => lines.push(String(chunk)));
    await once(child, 'close');
    return lines.join('').trim();
  };
  t.is(await run(true), 'true');
  t.is(await run(false), 'false');
});

/** Starts an application in a separate process, which can be blocked. */
async function spawnApp(t: ExecutionContext, options: { root: string; queue?: number }, descriptors?: number) {
  const app = new URL('./support/front-door-app.ts', import.meta.url).pathname;
  const command = [process.execPath, '--import=tsx', app, JSON.stringify(options)];
  const limit = descriptors === undefined ? '' : `ulimit -n ${descriptors}; `;
  const child = spawn('/bin/sh', ['-c', `${limit}exec "$@"`, 'sh', ...command], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  const lines: string[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  await until(() => lines.length > 0, 20_000, 'the application');
  const port = Number(lines[0]);
  const json = async (path: string) => JSON.parse((await get(port, path)).body.toString()) as unknown;
  return { child, lines, port, json };
}

test('files are served while JavaScript is busy, other requests wait', async (t) => {
  const { child, lines, port } = await spawnApp(t, { root: files(t) });
  child.stdin.write('block 1500\n');
  await until(() => lines.includes('blocking'));
  let done = 0;
  const route = get(port, '/route').finally(() => {
    done += 1;
  });
  for (let count = 0; count < 50; count++) t.is((await get(port, '/static/a.txt')).status, 200);
  t.false(lines.includes('unblocked'), 'JavaScript is still blocked');
  t.is(done, 0);
  t.is((await route).body.toString(), 'route');
  t.true(lines.includes('unblocked'));
});

test('a full handoff queue stops accepting', async (t) => {
  const { child, lines, port, json } = await spawnApp(t, { root: files(t), queue: 4 });
  child.stdin.write('block 1500\n');
  await until(() => lines.includes('blocking'));
  const routes = Array.from({ length: 40 }, () => get(port, '/route'));
  await sleep(200);
  // This connection waits in the backlog of the kernel.
  const file = get(port, '/static/a.txt');
  const bodies = (await Promise.all(routes)).map(({ body }) => body.toString());
  t.deepEqual([...new Set(bodies)], ['route']);
  t.is((await file).body.toString(), 'the file a');
  const { limits, handedOff } = (await json('/stats')) as { limits: { handoffQueue: number }; handedOff: number };
  t.is(handedOff, 41);
  t.true(limits.handoffQueue > 0);
});

test('accepting resumes when descriptors are available again', async (t) => {
  const root = files(t);
  const { port, json } = await spawnApp(t, { root }, 128);
  // Open the descriptors that the first request of each kind needs.
  await get(port, '/static/a.txt');
  await get(port, '/route');
  const before = (await json('/descriptors')) as string[];
  const clients = Array.from({ length: 300 }, () => net.connect(port, '127.0.0.1'));
  for (const client of clients) {
    client.on('error', () => {});
    client.write('GET /route HTTP/1.1\r\n');
  }
  await sleep(300);
  for (const client of clients) client.destroy();
  await until(() => clients.every((client) => client.closed));
  t.is((await get(port, '/static/a.txt')).body.toString(), 'the file a');
  t.is((await get(port, '/route')).body.toString(), 'route');
  const { limits } = (await json('/stats')) as { limits: { descriptors: number } };
  t.true(limits.descriptors > 0);
  let after = before;
  for (let tries = 0; tries < 200; tries++) {
    after = (await json('/descriptors')) as string[];
    if (after.length <= before.length) break;
    await sleep(20);
  }
  t.true(after.length <= before.length, `${before.join()}\n${after.join()}`);
});

test('close() during handoffs answers or refuses each connection', async (t) => {
  for (let round = 0; round < 10; round++) {
    const { app } = make(t, { root: files(t), prefix: '/static/' });
    app.get('/route', async () => 'route');
    const port = await listen(app);
    const clients = Array.from({ length: 20 }, async (_, index) => {
      await sleep(index % 5);
      return get(port, index % 2 === 0 ? '/route' : '/static/a.txt').then(
        ({ status }) => status,
        () => 0,
      );
    });
    await sleep(round % 4);
    await app.close();
    for (const status of await Promise.all(clients)) t.true([200, 503, 0].includes(status), `${status}`);
    t.is(door(app).connections, 0);
  }
});

test.serial('a worker thread that ends closes its front door', async (t) => {
  const root = files(t);
  patternFile(root, 'large.bin', 30_000_000);
  const before = openDescriptors();
  const source = `
    import http from 'node:http';
    import { parentPort, workerData } from 'node:worker_threads';
    import { frontDoor } from '${import.meta.resolve('zerosend')}';
    const server = http.createServer(() => {});
    frontDoor(server, { root: workerData });
    server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));`;
  const program = new URL(`data:text/javascript,${encodeURIComponent(source)}`);
  const worker = new Worker(program, { workerData: root });
  const [port] = (await once(worker, 'message')) as [number];
  t.is((await get(port, '/a.txt')).status, 200);
  const download = net.connect(port, '127.0.0.1');
  download.on('error', () => {});
  download.write(head('/large.bin'));
  await once(download, 'data');
  download.pause();
  const waiting = net.connect(port, '127.0.0.1');
  waiting.on('error', () => {});
  waiting.write(head('/route'));
  await sleep(50);
  await worker.terminate();
  download.resume();
  waiting.resume();
  await until(() => download.closed && waiting.closed);
  await t.throwsAsync(once(net.connect(port, '127.0.0.1'), 'connect'), { code: 'ECONNREFUSED' });
  await settled(t, before);
});
