/** An incomplete response ends with a reset of the connection or of the HTTP/2 stream. */
import { once } from 'node:events';
import { truncateSync } from 'node:fs';
import http, { type Server } from 'node:http';
import http2 from 'node:http2';
import { connect } from 'node:net';

import test, { type ExecutionContext } from 'ava';
import fastify from 'fastify';
import { createStaticHandler } from 'zerosend';
import fastifyStatic from 'zerosend/fastify';

import { openDescriptors, pattern, patternFile, scratch, settled, sha256, until } from '../support/files.js';
import { portOf, readToClose } from '../support/wire.js';

const MIB = 1024 * 1024;

const makes: Record<string, (root: string) => Promise<Server>> = {
  handler: async (root) => http.createServer(createStaticHandler(root)),
  plugin: (root) => pluginServer(root, false),
  'plugin with an onSend hook': (root) => pluginServer(root, true),
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
): Promise<{ root: string; port: number }> {
  const root = scratch(t);
  const server = await make(root);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return { root, port: portOf(server) };
}

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;

for (const [name, make] of Object.entries(makes)) {
  test.serial(`${name}: truncating a file resets the connection`, async (t) => {
    const before = openDescriptors();
    const { root, port } = await serve(t, make);
    const file = patternFile(root, 'shrinking', 64 * MIB);
    const socket = connect(port, '127.0.0.1');
    socket.write(get('/shrinking'));
    await once(socket, 'readable');
    truncateSync(file, 20 * MIB);
    const { bytes, reset } = await readToClose(socket);
    t.true(reset, `after ${bytes.length} bytes`);
    const body = bytes.subarray(bytes.indexOf('\r\n\r\n') + 4);
    t.true(body.length <= 20 * MIB);
    t.is(sha256(body), sha256(pattern(64 * MIB).subarray(0, body.length)));
    await until(() => openDescriptors().every((path) => !path.includes('shrinking')));
    t.true(openDescriptors().length <= before.length + 2);
  });
}

for (const name of ['handler', 'plugin']) {
  test.serial(`${name}: a slow client receives the complete responses before an aborted one`, async (t) => {
    const { root, port } = await serve(t, makes[name] as (typeof makes)[string]);
    patternFile(root, 'whole', 256 * 1024);
    const file = patternFile(root, 'shrinking', 64 * MIB);
    const socket = connect(port, '127.0.0.1');
    socket.write(get('/whole') + get('/shrinking'));
    // By then the first response is in the buffers of the kernel, and the second is being sent.
    await once(socket, 'readable');
    truncateSync(file, 1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const { bytes, reset } = await readToClose(socket);
    t.true(reset);
    const whole = bytes.subarray(bytes.indexOf('\r\n\r\n') + 4);
    t.is(sha256(whole.subarray(0, 256 * 1024)), sha256(pattern(256 * 1024)));
  });
}

test.serial('HTTP/2: truncating a file resets the stream', async (t) => {
  const before = openDescriptors();
  const root = scratch(t);
  const handler = createStaticHandler(root);
  const server = http2.createServer((request, response) => {
    handler(request as unknown as http.IncomingMessage, response as unknown as http.ServerResponse);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const file = patternFile(root, 'shrinking', 64 * MIB);
  const session = http2.connect(`http://127.0.0.1:${portOf(server)}`);
  const stream = session.request({ ':path': '/shrinking' });
  await once(stream, 'readable');
  truncateSync(file, MIB);
  stream.resume();
  const [error] = (await once(stream, 'error')) as [Error];
  t.regex(error.message, /INTERNAL_ERROR/);
  session.close();
  server.close();
  await once(server, 'close');
  await settled(t, before);
});
