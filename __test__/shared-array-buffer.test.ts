/** Views of a SharedArrayBuffer are copied before native code reads them, because other threads can write to them. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import {
  MappedFile,
  Pipe,
  receiveFile,
  relay,
  SharedBuffer,
  SharedRing,
  sendFile,
  sendFiles,
  sendPages,
  vmsplice,
} from 'zerosend';

import { engine } from '../dist/lib/runtime/engine.js';
import { pattern, scratch } from './support/files.js';
import { pair, readAll, readExactly } from './support/wire.js';

const BYTES = pattern(10_000);

function shared(): Uint8Array {
  const view = new Uint8Array(new SharedArrayBuffer(BYTES.length));
  view.set(BYTES);
  return view;
}

function hasShared(value: unknown): boolean {
  if (ArrayBuffer.isView(value)) return value.buffer instanceof SharedArrayBuffer;
  return typeof value === 'object' && value !== null && Object.values(value).some(hasShared);
}

/** Calls of native functions with a view of a SharedArrayBuffer. */
const violations: string[] = [];
const binding = engine() as unknown as Record<string, (...values: unknown[]) => unknown>;
for (const [name, call] of Object.entries(binding)) {
  if (typeof call !== 'function') continue;
  binding[name] = (...values) => {
    if (hasShared(values)) violations.push(name);
    return call(...values);
  };
}

/** Each entry point takes the bytes, and returns them as its effect shows them. */
const entryPoints: Record<string, (t: ExecutionContext) => Promise<Uint8Array>> = {
  async 'SharedRing.write of a large message'() {
    const ring = await SharedRing.create(null);
    ring.write(shared());
    const bytes = ring.read() as Buffer;
    ring.close();
    return bytes;
  },
  async 'SharedRing.write of small messages'() {
    const ring = await SharedRing.create(null, { framing: 'bytes' });
    const view = shared();
    for (let at = 0; at < view.length; at += 1000) ring.write(view.subarray(at, at + 1000));
    await ring.drained();
    const bytes = ring.read() as Buffer;
    ring.close();
    return bytes;
  },
  async 'SharedBuffer.write'() {
    const buffer = await SharedBuffer.create(null, { size: BYTES.length });
    buffer.write(shared());
    const bytes = buffer.read();
    buffer.close();
    return bytes;
  },
  async 'MappedFile.write'(t) {
    const path = join(scratch(t), 'file');
    const file = await MappedFile.open(path, { mode: 'shared', length: BYTES.length });
    await file.write(0, shared());
    file.close();
    return readFileSync(path);
  },
  async 'sendFile with a head'(t) {
    const path = join(scratch(t), 'file');
    writeFileSync(path, '');
    return await received(t, (socket) => sendFile(socket, path, { head: shared() }));
  },
  async sendFiles(t) {
    return await received(t, (socket) => sendFiles(socket, [shared()]));
  },
  async sendPages(t) {
    return await received(t, (socket) => sendPages(socket, shared()));
  },
  async vmsplice() {
    const pipe = new Pipe();
    const count = vmsplice(pipe, [shared()]);
    const file = await SharedBuffer.create(null, { size: count as number });
    await receiveFile(pipe.readFd, `/proc/self/fd/${file.fd}`, { length: count as number });
    const bytes = file.read();
    pipe.close();
    file.close();
    return bytes;
  },
  async 'receiveFile of bytes that were put back'(t) {
    const path = join(scratch(t), 'file');
    const { server, client } = await pair(t);
    server.unshift(shared());
    await receiveFile(server, path, { length: BYTES.length });
    client.destroy();
    return readFileSync(path);
  },
  async 'relay of bytes that were put back'(t) {
    const [a, b] = [await pair(t), await pair(t)];
    a.server.unshift(shared());
    const relaying = relay(a.server, b.server);
    const bytes = await readExactly(b.client, BYTES.length);
    a.client.end();
    b.client.end();
    await relaying;
    return bytes;
  },
};

async function received(
  t: ExecutionContext,
  send: (socket: Awaited<ReturnType<typeof pair>>['server']) => Promise<unknown>,
): Promise<Buffer> {
  const { server, client } = await pair(t);
  const all = readAll(client);
  await send(server);
  server.end();
  return await all;
}

for (const [name, run] of Object.entries(entryPoints)) {
  test.serial(`${name} copies a view of a SharedArrayBuffer`, async (t) => {
    violations.length = 0;
    t.true(Buffer.from(await run(t)).equals(BYTES));
    t.deepEqual(violations, []);
  });
}

test.serial('a view of a SharedArrayBuffer cannot be a gift', async (t) => {
  const error = { code: 'ERR_ZEROSEND_INVALID_ARGUMENT', message: /buffer/ };
  const { server } = await pair(t);
  await t.throwsAsync(sendPages(server, shared(), { gift: true }), error);
  const pipe = new Pipe();
  t.throws(() => vmsplice(pipe, shared(), { gift: true }), error);
  pipe.close();
});
