/**
 * Connections that end in various ways while a file is in the pipeline, being looked up or being sent: sockets and descriptors must be
 * closed.
 */
import { once } from 'node:events';
import http, { type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import net, { type Socket } from 'node:net';

import test, { type ExecutionContext } from 'ava';
import fastify from 'fastify';

import { createStaticHandler, frontDoor, type StaticHandlerOptions } from 'zerosend';
import fastifyStatic from 'zerosend/fastify';
import { openDescriptors, pattern, patternFile, scratch, settled, sha256, until } from '../support/files.js';
import { exchange, parseResponses, portOf, readAll } from '../support/wire.js';

const MIB = 1024 * 1024;

/** Routes of the application. */
function application(request: IncomingMessage, response: ServerResponse): void {
  switch (request.url) {
    case '/app/destroy':
      setTimeout(() => response.destroy(), 20);
      return;
    case '/app/cut':
      response.writeHead(200, { 'content-length': '100' });
      response.write('some of it');
      setTimeout(() => response.destroy(new Error('cut')), 20);
      return;
    case '/app/slow':
      setTimeout(() => response.end('slow'), 20);
      return;
    default:
    // Never responds.
  }
}

type Options = Pick<StaticHandlerOptions, 'onFile'>;
type Make = (root: string, options: Options) => Promise<Server>;

const fronts: Record<string, Make> = {
  handler: async (root, options) => {
    const handler = createStaticHandler(root, options);
    return http.createServer((request, response) => {
      handler(request, response, () => application(request, response));
    });
  },
  plugin: (root, options) => pluginServer(root, options, false),
  'plugin with an onSend hook': (root, options) => pluginServer(root, options, true),
  'front door': async (root) => {
    const server = http.createServer(application);
    frontDoor(server, { root });
    return server;
  },
};

async function pluginServer(root: string, options: Options, hook: boolean): Promise<Server> {
  const app = fastify();
  if (hook) app.addHook('onSend', async (_request, _reply, payload) => payload);
  await app.register(fastifyStatic, { root, ...options });
  app.get('/app/*', (request, reply) => {
    reply.hijack();
    application(request.raw, reply.raw);
  });
  await app.ready();
  return app.server;
}

async function serve(
  t: ExecutionContext,
  make: Make,
  options: Options = {},
): Promise<{ server: Server; port: number }> {
  const root = scratch(t);
  patternFile(root, 'a.txt', 10);
  patternFile(root, 'big', 3 * MIB);
  const server = await make(root, options);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return { server, port: portOf(server) };
}

const get = (path: string, fields = ''): string => `GET ${path} HTTP/1.1\r\nHost: x\r\n${fields}\r\n`;
const file = get('/big');
const NO_HOST = 'GET /app/none HTTP/1.1\r\n\r\n';

const connectionsOf = (server: Server): Promise<number> =>
  new Promise((resolve, reject) => server.getConnections((error, count) => (error ? reject(error) : resolve(count))));

async function noneLeft(server: Server): Promise<void> {
  let count = -1;
  for (const end = performance.now() + 20_000; performance.now() < end; ) {
    count = await connectionsOf(server);
    if (count === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`${count} connections are left`);
}

interface Case {
  text: string;
  /** Called on the client after the server has received the requests. */
  client?: 'close' | 'reset' | 'wait';
  prepare?: (server: Server) => void;
  /** Called on the server after all clients have sent their requests. */
  afterwards?: (server: Server) => void;
}

const badRequest = 'HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n';

const cases: Record<string, Case> = {
  'after a request without Host': { text: NO_HOST + file },
  'after a request without Host, twice': { text: NO_HOST + file + file },
  'after a request without Host, the client waits': { text: NO_HOST + file, client: 'wait' },
  'after a request without Host, the client resets': { text: NO_HOST + file, client: 'reset' },
  'after Connection: close': { text: get('/a.txt', 'Connection: close\r\n') + file },
  'after Connection: close of a large file': { text: get('/big', 'Connection: close\r\n') + file },
  'after Connection: close of a route': { text: get('/app/slow', 'Connection: close\r\n') + file },
  'after HTTP/1.0': { text: `GET /app/slow HTTP/1.0\r\n\r\n${file}` },
  'after a route that does not answer': { text: get('/app/never') + file },
  'after a file and a route that does not answer': { text: file + get('/app/never') + file },
  'after a route that does not answer, and reset': { text: get('/app/never') + file, client: 'reset' },
  'after a response that is destroyed': { text: get('/app/destroy') + file, client: 'wait' },
  'after a response that is cut': { text: get('/app/cut') + file, client: 'wait' },
  'before malformed bytes': { text: `${get('/app/never') + file}no HTTP\r\n\r\n`, client: 'wait' },
  'before malformed bytes, with a listener that responds': {
    text: `${get('/app/never') + file}no HTTP\r\n\r\n`,
    prepare: (server) => server.on('clientError', (_error, socket) => socket.end(badRequest)),
  },
  'before an upgrade that is refused': {
    text: get('/app/never') + file + get('/up', 'Connection: upgrade\r\nUpgrade: x\r\n'),
    prepare: (server) => server.on('upgrade', (_request, socket) => socket.on('error', () => {}).end(badRequest)),
  },
  'when the server times out': {
    text: get('/app/never') + file,
    client: 'wait',
    prepare: (server) => server.setTimeout(100),
  },
  'when a listener ends what has timed out': {
    text: get('/app/never') + file,
    prepare: (server) => server.setTimeout(100, (socket: Socket) => socket.end()),
    client: 'wait',
  },
  'beyond the requests of a socket': {
    text: get('/app/slow') + file,
    prepare: (server) => {
      server.maxRequestsPerSocket = 1;
    },
  },
  'when the server closes all': {
    text: get('/app/never') + file,
    client: 'wait',
    afterwards: (server) => server.close(() => {}).closeAllConnections(),
  },
  'when it has been idle for long enough': {
    text: file + file,
    client: 'wait',
    prepare: (server) => {
      server.keepAliveTimeout = 50;
    },
  },
};

for (const [front, make] of Object.entries(fronts)) {
  test.serial(`${front}: all sockets are closed`, async (t) => {
    for (const [name, { text, client = 'close', prepare, afterwards }] of Object.entries(cases)) {
      const { server, port } = await serve(t, make);
      // The first file opens descriptors that stay open: /dev/null, the list of mounts.
      await exchange(port, get('/big', 'Connection: close\r\n'));
      const before = openDescriptors().length;
      prepare?.(server);
      let requests = 0;
      server.on('request', () => {
        requests += 1;
      });
      const sockets = await Promise.all(
        Array.from({ length: 4 }, async () => {
          const socket = net.connect({ port, host: '127.0.0.1' });
          socket.on('error', () => {}).resume();
          socket.write(text);
          await once(socket, 'connect');
          return socket;
        }),
      );
      // Until the requests have reached the expected state, or the connections are closed.
      const started = performance.now();
      while (performance.now() - started < 50 || (requests < 4 && (await connectionsOf(server)) > 0)) {
        if (performance.now() - started > 300) break;
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      if (client === 'close') for (const socket of sockets) socket.destroy();
      if (client === 'reset') for (const socket of sockets) socket.resetAndDestroy();
      afterwards?.(server);
      await t.notThrowsAsync(() => noneLeft(server), name);
      for (const socket of sockets) socket.destroy();
      server.close();
      await until(() => openDescriptors().length <= before, 5000, `${name}: the closing of files`);
    }
  });
}

test.serial('a callback that never settles does not keep the connection of a disconnected client open', async (t) => {
  const disconnected = ['handler', 'plugin'].map(async (front) => {
    let seen = 0;
    const onFile = () => {
      seen += 1;
      return new Promise<void>(() => {});
    };
    const { server, port } = await serve(t, fronts[front] as Make, { onFile });
    const socket = net.connect(port, '127.0.0.1');
    socket.write(file + file);
    await until(() => seen === 2);
    socket.destroy();
    await noneLeft(server);
  });
  await t.notThrowsAsync(() => Promise.all(disconnected));
});

for (const [front, make] of Object.entries(fronts)) {
  test.serial(`${front}: a client that half-closes receives all requested files`, async (t) => {
    const before = openDescriptors();
    const onFile = () => new Promise<void>((resolve) => setTimeout(resolve, 5));
    for (const options of front === 'front door' ? [{}] : [{}, { onFile }]) {
      const { server, port } = await serve(t, make, options);
      const paths = ['/big', '/a.txt', '/big', '/big', '/a.txt'];
      for (const count of [1, 2, 5]) {
        const asked = paths.slice(0, count);
        const all = await exchange(port, asked.map((path) => get(path)).join(''), true);
        const lengths = parseResponses(all).map(({ body }) => body.length);
        t.deepEqual(
          lengths,
          asked.map((path) => (path === '/big' ? 3 * MIB : 10)),
        );
      }
      await noneLeft(server);
      server.close();
    }
    await settled(t, before);
  });
}

test.serial('many pipelined requests add no listeners to their socket', async (t) => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on('warning', onWarning);
  t.teardown(() => process.off('warning', onWarning));
  for (const make of Object.values(fronts)) {
    const { server, port } = await serve(t, make);
    const maxima = new Map<string, number>();
    server.on('request', ({ socket }: IncomingMessage) => {
      for (const name of socket.eventNames() as string[]) {
        maxima.set(name, Math.max(maxima.get(name) ?? 0, socket.listenerCount(name)));
      }
    });
    // A route first, so that the front door hands off the connection to Node.
    const client = net.connect(port, '127.0.0.1');
    client.write(get('/app/slow') + get('/big').repeat(29) + get('/big', 'Connection: close\r\n'));
    const responses = parseResponses(await readAll(client).then((bytes) => bytes.subarray(bytes.indexOf('slow') + 4)));
    t.is(responses.length, 30);
    for (const { body } of responses) t.is(sha256(body), sha256(pattern(3 * MIB)));
    for (const [name, count] of maxima) t.true(count <= 5, `${count} listeners of ${name}`);
  }
  t.deepEqual(warnings, []);
});
