/** Clients that send malformed requests while they receive a file: the file is sent completely, and the connection is closed. */
import { once } from 'node:events';
import http, { type Server } from 'node:http';
import { connect, type Socket } from 'node:net';

import test, { type ExecutionContext } from 'ava';
import fastify from 'fastify';
import { createStaticHandler, frontDoor } from 'zerosend';
import fastifyStatic from 'zerosend/fastify';

import { pattern, patternFile, scratch, sha256, until } from '../support/files.js';
import { portOf } from '../support/wire.js';

const MIB = 1024 * 1024;

const fronts: Record<string, (root: string) => Promise<Server>> = {
  handler: async (root) => http.createServer(createStaticHandler(root)),
  plugin: (root) => pluginServer(root, false),
  'plugin with an onSend hook': (root) => pluginServer(root, true),
  'front door': async (root) => {
    const server = http.createServer();
    frontDoor(server, { root });
    return server;
  },
};

async function pluginServer(root: string, hook: boolean): Promise<Server> {
  const app = fastify();
  if (hook) app.addHook('onSend', async (_request, _reply, payload) => payload);
  await app.register(fastifyStatic, { root });
  await app.ready();
  return app.server;
}

async function serve(
  t: ExecutionContext,
  make: (root: string) => Promise<Server>,
  prepare?: (server: Server) => void,
): Promise<{ server: Server; port: number }> {
  const root = scratch(t);
  patternFile(root, 'large', MIB);
  patternFile(root, 'small', 100);
  const server = await make(root);
  prepare?.(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return { server, port: portOf(server) };
}

const get = (path: string, fields = '') => `GET ${path} HTTP/1.1\r\nHost: x\r\n${fields}\r\n`;
const CLOSE = 'Connection: close\r\n';
const file = get('/large');
const last = get('/large', CLOSE);
const malformed = 'MALFORMED\r\n\r\n';
const flood = 'x'.repeat(200_000);

interface Case {
  text: string;
  /** Sent while the response is being received. */
  later?: string;
  /** Number of complete files that the client receives. Default 1. */
  files?: number;
  prepare?: (server: Server) => void;
}

const atMost = (requests: number) => (server: Server) => {
  server.maxRequestsPerSocket = requests;
  server.keepAliveTimeout = 1;
};

const cases: Record<string, Case> = {
  'a byte after Connection: close': { text: `${last}x` },
  'a flood after Connection: close': { text: last + flood },
  'a byte after Connection: close, later': { text: last, later: 'x' },
  'a flood after Connection: close, later': { text: last, later: flood },
  'a malformed request after the file': { text: file + malformed },
  'a malformed request after the file, later': { text: file, later: malformed },
  'a malformed flood after the file, later': { text: file, later: flood },
  'a malformed request after two files': { text: file + file + malformed, files: 2 },
  'a byte after a second request with Connection: close': { text: `${file + last}x`, files: 2 },
  'one request more than maxRequestsPerSocket': { text: file + file, prepare: atMost(1) },
  'several requests more than maxRequestsPerSocket': { text: file.repeat(5), files: 2, prepare: atMost(2) },
  'a flood after the last request of maxRequestsPerSocket': { text: file + flood, prepare: atMost(1) },
  'a request without Host after the file': { text: `${file}GET /small HTTP/1.1\r\n\r\n` },
  'a clientError listener that destroys the socket': {
    text: file + malformed,
    prepare: (server) => server.on('clientError', (_error, socket) => socket.destroy()),
  },
  'a clientError listener that responds and destroys the socket': {
    text: file + malformed,
    prepare: (server) =>
      server.on('clientError', (error, socket) => {
        if (socket.writable) socket.write('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
        socket.destroy(error);
      }),
  },
};

const connectionsOf = (server: Server): Promise<number> =>
  new Promise((resolve, reject) => server.getConnections((error, count) => (error ? reject(error) : resolve(count))));

async function noneLeft(server: Server): Promise<void> {
  let count = 1;
  for (const end = performance.now() + 20_000; count > 0 && performance.now() < end; ) {
    count = await connectionsOf(server);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  if (count > 0) throw new Error(`${count} connections are left`);
}

/** The bytes that a slow client receives, which starts to read 100 ms after its request. */
async function receive(port: number, { text, later }: Case): Promise<Buffer> {
  const socket = connect(port, '127.0.0.1');
  const chunks: Buffer[] = [];
  socket.on('error', () => {}).pause();
  const closed = new Promise((resolve) => socket.on('close', resolve));
  await once(socket, 'connect');
  socket.write(text);
  await new Promise((resolve) => setTimeout(resolve, 40));
  if (later !== undefined) socket.write(later);
  await new Promise((resolve) => setTimeout(resolve, 60));
  socket.on('data', (bytes: Buffer) => {
    chunks.push(bytes);
    socket.pause();
    setTimeout(() => socket.resume(), 1);
  });
  socket.resume();
  await closed;
  return Buffer.concat(chunks);
}

/** The digests of the complete files at the start of the received bytes. */
function wholeFiles(bytes: Buffer): string[] {
  const digests: string[] = [];
  for (let rest = bytes; rest.subarray(0, 15).toString('latin1') === 'HTTP/1.1 200 OK'; ) {
    const body = rest.indexOf('\r\n\r\n') + 4;
    if (rest.length < body + MIB) break;
    digests.push(sha256(rest.subarray(body, body + MIB)));
    rest = rest.subarray(body + MIB);
  }
  return digests;
}

const digest = sha256(pattern(MIB));

for (const [front, make] of Object.entries(fronts)) {
  test.serial(`${front}: files are sent completely`, async (t) => {
    for (const [name, one] of Object.entries(cases)) {
      const { server, port } = await serve(t, make, one.prepare);
      const received = await Promise.all(Array.from({ length: 3 }, () => receive(port, one)));
      for (const bytes of received) t.deepEqual(wholeFiles(bytes), Array(one.files ?? 1).fill(digest), name);
      await t.notThrowsAsync(() => noneLeft(server), name);
      server.close();
    }
  });
}

test.serial('a connection is closed if the client does not close it', async (t) => {
  const { server, port } = await serve(t, fronts.handler as (root: string) => Promise<Server>);
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  t.teardown(() => socket.destroy());
  socket.on('error', () => {}).resume();
  socket.write(`${last}x`);
  await once(socket, 'end');
  t.is(await connectionsOf(server), 1);
  await t.notThrowsAsync(() => noneLeft(server));
});

const ends: Record<string, (client: Socket, server: Server) => void> = {
  'the client resets': (client) => client.resetAndDestroy(),
  'the client closes': (client) => client.destroy(),
  'the server closes all': (_client, server) => server.closeAllConnections(),
};

for (const [name, end] of Object.entries(ends)) {
  test.serial(`a file before a rejected request is not sent when ${name}`, async (t) => {
    let rejected = false;
    const { server, port } = await serve(t, fronts.handler as (root: string) => Promise<Server>, (one) =>
      one.on('clientError', (error, socket) => {
        rejected = true;
        socket.destroy(error);
      }),
    );
    const client = connect(port, '127.0.0.1');
    t.teardown(() => client.destroy());
    client.on('error', () => {}).pause();
    client.write(file.repeat(20) + malformed);
    await until(() => rejected);
    t.is(await connectionsOf(server), 1);
    end(client, server);
    await t.notThrowsAsync(() => noneLeft(server));
  });
}
