/** Functions of the application that are called by zerosend: results and exceptions have the same effect as without it. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import test, { type ExecutionContext } from 'ava';
import fastify, { type FastifyInstance } from 'fastify';
import { createStaticHandler } from 'zerosend';
import fastifyStatic, { type FastifyStaticOptions, frontDoor } from 'zerosend/fastify';

import { patternFile, scratch, until } from '../support/files.js';
import { get, portOf } from '../support/wire.js';

async function plugin(
  t: ExecutionContext,
  options: Partial<FastifyStaticOptions>,
  prepare: (app: FastifyInstance) => void,
): Promise<FastifyInstance> {
  const root = scratch(t);
  patternFile(root, 'a.txt', 10);
  const app = fastify();
  prepare(app);
  await app.register(fastifyStatic, { root, dotfiles: 'deny', ...options });
  t.teardown(() => app.close());
  return app;
}

/** Requests that fail, with the status. */
const failing = [
  ['/a.txt', { range: 'bytes=99-' }, 416],
  ['/a.txt', { 'if-match': '"other"' }, 412],
  ['/.hidden', {}, 403],
  ['/a//b', {}, 403],
] as const;

test('the result of an async error handler is the response', async (t) => {
  const app = await plugin(t, {}, (instance) => {
    instance.setErrorHandler(async function (
      this: FastifyInstance,
      error: Error & { statusCode?: number },
      request,
      reply,
    ) {
      await null;
      t.is(this, instance);
      t.is(request.method, 'GET');
      reply.code(error.statusCode ?? 500);
      return `handled ${error.statusCode}`;
    });
  });
  for (const [url, headers, status] of failing) {
    const response = await app.inject({ url, headers });
    t.is(response.statusCode, status, url);
    t.is(response.payload, `handled ${status}`);
  }
});

test('the result of a synchronous error handler is the response', async (t) => {
  const app = await plugin(t, {}, (instance) => instance.setErrorHandler(() => ({ handled: true })));
  for (const [url, headers] of failing) t.deepEqual((await app.inject({ url, headers })).json(), { handled: true });
});

for (const how of ['throws', 'rejects'] as const) {
  test(`an error handler that ${how} is called once, and its error goes to the parent handler`, async (t) => {
    let called = 0;
    const app = await plugin(t, {}, (instance) => {
      instance.setErrorHandler((): unknown => {
        called += 1;
        const error = new Error('of the handler');
        if (how === 'throws') throw error;
        return Promise.reject(error);
      });
    });
    // A route of the application without the plugin, for comparison.
    app.get('/route', () => {
      throw new Error('of the route');
    });
    for (const url of ['/route', '/.hidden']) {
      called = 0;
      const response = await app.inject(url);
      t.is(called, 1, url);
      t.is(response.statusCode, 500);
      t.is(response.json().message, 'of the handler');
    }
  });
}

test('error handlers of errors in onFile', async (t) => {
  const onFile = async () => {
    throw Object.assign(new Error('no'), { statusCode: 451 });
  };
  const app = await plugin(t, { onFile }, (instance) =>
    instance.setErrorHandler(async (error: Error, _request, reply) => {
      reply.code(200);
      return error.message;
    }),
  );
  const response = await app.inject('/a.txt');
  t.is(response.payload, 'no');
});

test('the front door uses the request ids of the application', async (t) => {
  const root = scratch(t);
  patternFile(root, 'a.txt', 10);
  const lines: Record<string, unknown>[] = [];
  const owners: unknown[] = [];
  const app = fastify({
    logger: { stream: { write: (line: string) => void lines.push(JSON.parse(line)) } },
    serverFactory: frontDoor({ root, log: true }),
    genReqId(this: unknown) {
      owners.push(this);
      return `id-${owners.length}`;
    },
  });
  t.teardown(() => app.close());
  await app.listen({ port: 0, host: '127.0.0.1' });
  await get(portOf(app.server), '/a.txt');
  await until(() => lines.some(({ msg }) => msg === 'request completed'));
  await app.inject('/nothing');
  t.is(owners.length, 2);
  t.is(owners[0], owners[1]);
});

for (const front of ['plugin', 'handler'] as const) {
  test(`${front}: an async allowedPath is awaited`, async (t) => {
    const allowedPath = async (path: string) => {
      await null;
      return !path.endsWith('a.txt');
    };
    const root = scratch(t);
    patternFile(root, 'a.txt', 10);
    patternFile(root, 'b.txt', 10);
    const app = fastify();
    t.teardown(() => app.close());
    if (front === 'plugin') {
      await app.register(fastifyStatic, { root, allowedPath, extensions: ['txt'] });
    } else {
      const handler = createStaticHandler(root, { allowedPath, extensions: ['txt'] });
      app.get('/*', (request, reply) => {
        reply.hijack();
        handler(request.raw, reply.raw);
      });
    }
    const statuses = ['/a.txt', '/a', '/b.txt', '/b'].map(async (url) => (await app.inject(url)).statusCode);
    t.deepEqual(await Promise.all(statuses), [404, 404, 200, 200]);
  });
}

/** The events in a process whose application throws, with and without zerosend before it. */
const SCRIPT = `
import http from 'node:http';
import { createStaticHandler, frontDoor } from 'zerosend';
const [front, how, root, path, headers] = process.argv.slice(1);
const seen = [];
const say = (what) => (error) => seen.push(what + ': ' + error.message);
process.on('uncaughtException', (error, origin) => say(origin)(error));
const fail = () => { throw new Error('of the application'); };
const application = how === 'throws' ? fail : async () => fail();
let calls = 0;
const listener = (request, response) => {
  calls += 1;
  setTimeout(() => response.end('application'), 100);
  return application(request, response);
};
let server = http.createServer(front === 'capture' ? { captureRejections: true } : {});
if (front.startsWith('handler')) {
  const options = front === 'handler with a callback' ? { onFile: async () => {} } : {};
  const handler = createStaticHandler(root, options);
  // As a router, which ignores the result of next().
  server.on('request', (request, response) => handler(request, response, () => listener(request, response)));
} else {
  if (front === 'door') frontDoor(server, { root });
  server.on('request', listener);
}
server.listen(0, '127.0.0.1', async () => {
  const response = await fetch('http://127.0.0.1:' + server.address().port + path, JSON.parse(headers));
  const text = await response.text();
  await new Promise((resolve) => setTimeout(resolve, 20));
  console.log(JSON.stringify({ calls, seen, status: response.status, text }));
  process.exit();
});
`;

for (const how of ['throws', 'rejects'] as const) {
  test(`an application that ${how} after a static handler is called once, and its error is uncaught`, async (t) => {
    const root = scratch(t);
    patternFile(root, 'a.txt', 10);
    const run = promisify(execFile);
    const requests: [path: string, init: RequestInit][] = [
      ['/missing', {}],
      ['/a.txt', { method: 'POST', body: 'body' }],
    ];
    for (const [path, init] of requests) {
      const results = ['none', 'handler', 'handler with a callback', 'door'].map(async (front) => {
        const args = ['--input-type=module', '-e', SCRIPT, '--', front, how, root, path, JSON.stringify(init)];
        const { stdout } = await run(process.execPath, args);
        return JSON.parse(stdout);
      });
      const [without, ...others] = await Promise.all(results);
      t.is(without.calls, 1);
      t.is(without.seen.length, 1);
      for (const other of others) t.deepEqual(other, without, path);
    }
  });
}

/** An application that throws at various times while it reads a body that arrived with its head. */
const BODY_SCRIPT = `
import http from 'node:http';
import net from 'node:net';
import { frontDoor } from 'zerosend';
const [front, how, root, handled] = process.argv.slice(1);
const seen = [];
if (handled === 'handled') process.on('uncaughtException', (error) => seen.push(error.message));
process.on('exit', (code) => console.log(JSON.stringify({ seen, code })));
const fail = () => { throw new Error('of the application'); };
const server = http.createServer((request, response) => {
  if (how === 'request') fail();
  request.on('data', () => {
    if (how === 'data') fail();
    if (how === 'tick') process.nextTick(fail);
    if (how === 'promise') void Promise.resolve().then(fail);
  });
  request.on('end', () => response.end('ok'));
});
if (front === 'door') frontDoor(server, { root });
const post = 'POST /app HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 5\\r\\n\\r\\nhello';
server.listen(0, '127.0.0.1', () => {
  const socket = net.connect(server.address().port, '127.0.0.1', () => socket.write(post));
  // A second request shows that the process continues.
  const next = () => {
    const second = net.connect(server.address().port, '127.0.0.1', () => second.write(post));
    const wait = () => (seen.length > 1 ? process.exit(0) : setTimeout(wait, 5));
    wait();
  };
  const wait = () => (seen.length > 0 ? next() : setTimeout(wait, 5));
  wait();
});
`;

test('exceptions while a body is read are the same with and without the front door', async (t) => {
  const root = scratch(t);
  const run = promisify(execFile);
  const outcome = async (...args: string[]) => {
    const child = run(process.execPath, ['--input-type=module', '-e', BODY_SCRIPT, '--', ...args], { timeout: 60_000 });
    const { stdout, stderr } = await child.catch((error) => error as { stdout: string; stderr: string });
    return { ...JSON.parse(stdout || '{}'), named: /Error: of the application/.test(stderr) };
  };
  for (const how of ['request', 'data', 'tick', 'promise']) {
    for (const handled of ['handled', 'unhandled']) {
      const [door, without] = await Promise.all(['door', 'none'].map((front) => outcome(front, how, root, handled)));
      t.deepEqual(door, without, `${how}, ${handled}`);
      t.is(without.code, handled === 'handled' ? 0 : 1);
    }
  }
});
