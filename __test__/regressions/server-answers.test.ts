/** Responses of the native server and the front door: complete, and counted. */
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import { createFileServer, frontDoor } from 'zerosend';

import { pattern, patternFile, scratch } from '../support/files.js';
import { get, parseResponses, portOf, readAll } from '../support/wire.js';

const MIB = 1024 * 1024;

async function fileServer(t: ExecutionContext, root: string): Promise<number> {
  const server = createFileServer({ root, workers: 1, limits: { requestsPerConnection: 2 } });
  t.teardown(() => server.close({ drain: 0 }));
  const address = await server.listen();
  return 'port' in address ? address.port : 0;
}

async function door(t: ExecutionContext, root: string): Promise<number> {
  const server = http.createServer((_, response) => response.end('application'));
  server.maxRequestsPerSocket = 2;
  frontDoor(server, { root });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return portOf(server);
}

for (const [name, start] of [
  ['createFileServer', fileServer],
  ['the front door', door],
] as const) {
  test.serial(`${name}: bytes after the last request do not truncate its response`, async (t) => {
    const root = scratch(t);
    patternFile(root, 'mib.bin', MIB);
    const port = await start(t, root);
    const request = 'GET /mib.bin HTTP/1.1\r\nHost: x\r\n\r\n';
    const last = 'GET /mib.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
    for (const [first, later, responses] of [
      [request + request, request, 2],
      [last, 'x', 1],
      [last, request.repeat(100), 1],
    ] as const) {
      const client = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
      client.write(first);
      // The client starts to read after the server could have closed the connection.
      client.pause();
      await new Promise((resolve) => setTimeout(resolve, 30));
      client.write(later);
      await new Promise((resolve) => setTimeout(resolve, 100));
      const all = parseResponses(await readAll(client));
      client.destroy();
      t.is(all.length, responses);
      for (const { status, body } of all) t.true(status === 200 && body.equals(pattern(MIB)));
    }
  });
}

test.serial('the log and the statistics count the bytes of bodies', async (t) => {
  const root = scratch(t);
  writeFileSync(join(root, 'a.txt'), '0123456789');
  const path = join(scratch(t), 'log');
  const server = createFileServer({ root, workers: 1, log: { format: 'json', path } });
  const address = await server.listen();
  const port = 'port' in address ? address.port : 0;
  const { headers } = await get(port, '/a.txt');
  await get(port, '/a.txt', { 'If-None-Match': headers.etag ?? '' });
  await get(port, '/a.txt', {}, 'HEAD');
  await get(port, '/a.txt', { Range: 'bytes=2-5' });
  const missing = await get(port, '/nothing');
  await server.close();
  const lines = readFileSync(path, 'utf8').trim().split('\n');
  const entries = lines.map((line) => JSON.parse(line) as { status: number; bytes: number; headBytes: number });
  t.deepEqual(
    entries.map(({ status, bytes }) => [status, bytes]),
    [
      [200, 10],
      [304, 0],
      [200, 0],
      [206, 4],
      [404, missing.body.length],
    ],
  );
  t.true(entries.every(({ headBytes }) => headBytes > 100));
  const { bytes, headBytes, prometheus } = server.stats();
  t.is(bytes, 14 + missing.body.length);
  t.is(
    headBytes,
    entries.reduce((sum, entry) => sum + entry.headBytes, 0),
  );
  t.true(prometheus.includes(`zerosend_sent_bytes_total ${bytes}\n`));
});
