/** The native server on a file system that hangs: waits are bounded and do not delay other clients. */
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { createFileServer, type FileServerOptions } from 'zerosend';

import { fuseSerial, mount } from '../support/faultfs.js';
import { openDescriptors, pattern, patternFile, until } from '../support/files.js';
import { get, parseResponses, readAll } from '../support/wire.js';

const TIMEOUT = 400;

async function start(t: ExecutionContext, options: Partial<FileServerOptions> & { root: string }) {
  const server = createFileServer({ workers: 1, cache: false, limits: { diskTimeout: TIMEOUT }, ...options });
  t.teardown(() => server.close({ drain: 0 }));
  const address = await server.listen();
  if (!('port' in address)) throw new Error('a TCP address');
  return { server, port: address.port };
}

fuseSerial('an open that hangs is 503 after diskTimeout, and is cleaned up when it returns', async (t) => {
  const disk = await mount(t);
  patternFile(disk.backing, 'file.bin', 1000);
  writeFileSync(join(disk.backing, 'other.txt'), 'hello');
  const { server, port } = await start(t, { root: disk.path });
  t.is((await get(port, '/other.txt')).status, 200);
  const before = openDescriptors();
  for (const operation of ['lookup', 'open'] as const) {
    await disk.set(operation, { hang: true }, '/file.bin');
    const response = await get(port, '/file.bin');
    t.is(response.status, 503, operation);
    t.is(response.headers['retry-after'], '1');
    t.is(response.headers.connection, 'close');
    await disk.clear();
    await until(() => openDescriptors().length <= before.length, 10_000, 'all descriptors are closed');
    await until(() => server.stats().connections === 0, 10_000, 'all connections are closed');
    t.is((await get(port, '/file.bin')).status, 200, 'the file is served later');
  }
  t.is(server.stats().limits.diskTimeout, 2);
  t.is(server.stats().failures, 0);
});

fuseSerial('a read that hangs ends in a reset', async (t) => {
  const disk = await mount(t);
  patternFile(disk.backing, 'file.bin', 8_000_000);
  const { server, port } = await start(t, { root: disk.path });
  await disk.set('read', { hang: true, from: 4_000_000 });
  const client = connect(port, '127.0.0.1').on('error', () => {});
  const chunks: Buffer[] = [];
  client.on('data', (chunk) => chunks.push(chunk));
  const ended = once(client, 'end').then(() => 'end');
  client.write('GET /file.bin HTTP/1.1\r\nHost: x\r\n\r\n');
  const how = await Promise.race([ended, once(client, 'close').then(() => 'reset')]).catch(() => 'reset');
  t.is(how, 'reset');
  const [response] = parseResponses(Buffer.concat(chunks));
  t.is(response?.headers['content-length'], '8000000');
  const body = response?.body ?? Buffer.alloc(0);
  t.true(body.length > 0 && body.length < 8_000_000);
  t.true(body.equals(pattern(8_000_000).subarray(0, body.length)), 'the received bytes are correct');
  await disk.clear();
  await until(() => server.stats().connections === 0, 10_000, 'all connections are closed');
  t.is(server.stats().limits.diskTimeout, 1);
  t.is(server.stats().aborted, 1);
});

fuseSerial('close({ drain }) ends while an open hangs', async (t) => {
  const disk = await mount(t);
  patternFile(disk.backing, 'file.bin', 1000);
  const { server, port } = await start(t, { root: disk.path, limits: { diskTimeout: 0 } });
  await disk.set('lookup', { hang: true }, '/file.bin');
  const client = connect(port, '127.0.0.1').on('error', () => {});
  client.write('GET /file.bin HTTP/1.1\r\nHost: x\r\n\r\n');
  await disk.held('lookup');
  await server.close({ drain: 200 });
  t.is((await readAll(client).catch(() => Buffer.alloc(0))).length, 0);
  await disk.clear();
});
