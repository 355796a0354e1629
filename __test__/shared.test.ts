/** SharedBuffer and SharedRing between processes and threads. The memory order of a ring is tested in Rust. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, statSync, truncateSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import test, { type ExecutionContext } from 'ava';
import { SharedBuffer, SharedRing, type SharedRingOptions } from 'zerosend';

import { openDescriptors, pattern, scratch, settled, sha256, until } from './support/files.js';
import { pair, readAll } from './support/wire.js';

let names = 0;

/** A name that is removed after the test. */
function named(t: ExecutionContext, what: string): string {
  names += 1;
  const name = `zerosend-test-${what}-${process.pid}-${names}`;
  t.teardown(() => SharedRing.unlink(name));
  return name;
}

/** Starts a process that runs these lines, with `name` defined. */
function script(
  t: ExecutionContext,
  lines: string,
  name: string | number,
  stdio: (number | 'ignore')[] = [],
): ChildProcess {
  const program = `import { SharedBuffer, SharedRing } from 'zerosend'; import net from 'node:net';
    const name = ${JSON.stringify(name)};
    ${lines}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit', ...stdio],
  });
  t.teardown(() => child.kill('SIGKILL'));
  return child;
}

async function ring(t: ExecutionContext, name: string | null, options: SharedRingOptions = {}): Promise<SharedRing> {
  const made = await SharedRing.create(name, options);
  t.teardown(() => made.close());
  return made;
}

test.serial('a shared buffer has a name, bytes and a mode, and refuses invalid arguments', async (t) => {
  const before = openDescriptors();
  const name = named(t, 'buffer');
  const buffer = await SharedBuffer.create(name, { size: 10_000 });
  t.is(buffer.name, `/${name}`);
  t.is(statSync(`/dev/shm/${name}`).mode & 0o777, 0o600);
  await t.throwsAsync(SharedBuffer.create(name, { size: 10 }), {
    code: 'EEXIST',
    message: /shm_open '\/zerosend-test/,
  });
  const other = await SharedBuffer.open(`/${name}`);
  t.is(other.size, 10_000);
  buffer.write('hello', 9_995);
  buffer.write(Buffer.from([1, 2, 3]));
  t.is(other.read(9_995).toString(), 'hello');
  t.deepEqual([...other.read(0, 4)], [1, 2, 3, 0]);
  t.is(readFileSync(`/dev/shm/${name}`).length, 10_000);
  for (const wrong of [() => buffer.read(9_999, 2), () => buffer.write('xx', 9_999), () => buffer.read(20_000)]) {
    t.throws(wrong, { code: 'ERR_ZEROSEND_OUT_OF_RANGE', message: /exceed the size of 10000 bytes/ });
  }
  t.throws(() => buffer.seal('shrink'), { code: 'ERR_ZEROSEND_UNSUPPORTED', message: /without a name/ });
  truncateSync(`/dev/shm/${name}`, 100);
  t.throws(() => other.read(0, 5000), { code: 'ERR_ZEROSEND_TRUNCATED' });
  t.true(buffer.unlink());
  t.false(SharedBuffer.unlink(name));
  await t.throwsAsync(SharedBuffer.open(name), { code: 'ENOENT' });
  buffer.close();
  buffer.close();
  other.close();
  t.throws(() => buffer.read(), { code: 'ERR_ZEROSEND_CLOSED' });

  const shared = await SharedBuffer.create(named(t, 'mode'), { size: 1, mode: 0o660 });
  t.is(statSync(`/dev/shm${shared.name}`).mode & 0o777, 0o660);
  shared.close();
  for (const [options, message] of [
    [{ size: 0 }, /invalid size 0/],
    [{ size: -1 }, /invalid size -1/],
    [{ size: 1, mode: 0o1777 }, /invalid mode 1023/],
  ] as const) {
    await t.throwsAsync(SharedBuffer.create(null, options), { message });
  }
  for (const bad of ['', 'a/b', '..', 'x\0', 'x'.repeat(300)]) {
    await t.throwsAsync(SharedBuffer.open(bad), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT', message: /invalid name/ });
  }
  await t.throwsAsync(SharedBuffer.open(99_999), { code: 'EBADF' });
  await settled(t, before);
});

test.serial('a buffer without a name is sealed, inherited by a child, and sent over a Unix socket', async (t) => {
  const buffer = await SharedBuffer.create(null, { size: 4096 });
  t.is(buffer.name, undefined);
  buffer.write('from the parent');
  buffer.seal('shrink', 'grow');
  const child = script(
    t,
    `const buffer = await SharedBuffer.open(3); console.log(buffer.read(0, 15).toString()); buffer.write('from the child', 100);`,
    '',
    [buffer.fd],
  );
  t.is((await readAll(child.stdout as NodeJS.ReadableStream)).toString().trim(), 'from the parent');
  t.is(buffer.read(100, 14).toString(), 'from the child');

  const path = join(scratch(t), 'socket');
  const server = net.createServer({ pauseOnConnect: true });
  server.listen(path);
  await once(server, 'listening');
  const connection = once(server, 'connection') as Promise<[net.Socket]>;
  script(
    t,
    `const socket = net.connect(name); const buffer = await SharedBuffer.create(null, { size: 5 });
     buffer.write('third'); await buffer.send(socket); socket.end();`,
    path,
  );
  const [socket] = await connection;
  const received = await SharedBuffer.receive(socket);
  t.is(received.read().toString(), 'third');
  socket.destroy();
  server.close();

  buffer.seal('write');
  t.throws(() => buffer.write('x'), { code: 'EPERM' });
  buffer.close();
  received.close();

  // Bytes instead of a descriptor, and a cancellation.
  const { server: ours, client } = await pair(t, join(scratch(t), 'another'));
  client.write('bytes');
  await t.throwsAsync(SharedBuffer.receive(ours), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT' });
  const second = await pair(t, join(scratch(t), 'one-more'));
  second.server.pause();
  const waiting = SharedRing.receive(second.server, { signal: AbortSignal.timeout(50) });
  await t.throwsAsync(waiting, { code: 'ABORT_ERR' });
});

test.serial('messages of all sizes arrive in order from another process', async (t) => {
  const name = named(t, 'messages');
  const reader = await ring(t, name, { capacity: 200_000 });
  const child = script(
    t,
    `import { createHash } from 'node:crypto';
     const ring = await SharedRing.open(name);
     const hash = createHash('sha256');
     for (let n = 0; n < 20_000; n++) {
       const message = Buffer.alloc(n % 50 === 0 ? (n * 7919) % 150_000 : (n * 31) % 300, n);
       hash.update(message).update(String(message.length));
       if (!ring.write(message)) await ring.drained();
     }
     await ring.end();
     console.log(hash.digest('hex'));`,
    name,
  );
  const hash = createHash('sha256');
  let count = 0;
  for await (const message of reader) {
    hash.update(message).update(String(message.length));
    count += 1;
  }
  t.is(count, 20_000);
  t.true(reader.ended);
  t.is(reader.read(), null);
  t.false(await reader.readable());
  t.is((await readAll(child.stdout as NodeJS.ReadableStream)).toString().trim(), hash.digest('hex'));
});

test.serial('a worker reads a stream of bytes through the descriptor', async (t) => {
  const writer = await ring(t, null, { capacity: 4096, framing: 'bytes' });
  const worker = new Worker(
    `import('zerosend').then(async ({ SharedRing }) => {
       const { workerData, parentPort } = require('node:worker_threads');
       const hash = require('node:crypto').createHash('sha256');
       for await (const bytes of await SharedRing.open(workerData)) hash.update(bytes);
       parentPort.postMessage(hash.digest('hex'));
     });`,
    { eval: true, workerData: writer.fd },
  );
  const data = pattern(3_000_000);
  let waited = 0;
  for (let at = 0; at < data.length; at += 10_007) {
    if (writer.write(data.subarray(at, at + 10_007))) continue;
    waited += 1;
    await writer.drained();
  }
  t.true(waited > 10);
  await writer.end();
  await t.throwsAsync(async () => writer.write('more'), { code: 'ERR_ZEROSEND_CLOSED' });
  t.is((await once(worker, 'message'))[0], sha256(data));
  await worker.terminate();
});

test.serial('small writes of one turn are written together, and wait in order while the ring is full', async (t) => {
  const name = named(t, 'small');
  const writer = await ring(t, name, { capacity: 4096 });
  const reader = await SharedRing.open(name);
  t.teardown(() => reader.close());
  t.is(reader.read(), null);
  for (let n = 0; n < 100; n++) t.true(writer.write(`message ${n}`));
  t.is(reader.read(), null, 'nothing is written before the end of the turn');
  await Promise.resolve();
  for (let n = 0; n < 100; n++) t.is(reader.read()?.toString(), `message ${n}`);
  t.is(reader.read(), null);
  t.true(writer.write(''));
  await writer.drained();
  t.is(reader.read()?.length, 0);
  t.throws(() => writer.write(Buffer.alloc(4093)), { code: 'ERR_ZEROSEND_OUT_OF_RANGE', message: /4093 bytes.*4092/ });
  t.throws(() => writer.write(5 as unknown as string), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT' });

  // More than the capacity: the rest is queued in this process.
  for (let n = 0; n < 50; n++) writer.write(Buffer.alloc(n % 2 === 0 ? 1000 : 4092, n));
  const drained = writer.drained();
  for (let n = 0; n < 50; n++) {
    await reader.readable();
    const message = reader.read();
    t.is(message?.length, n % 2 === 0 ? 1000 : 4092);
    t.is(message?.[0], n);
  }
  await drained;

  // A second reader and a second writer.
  const second = await SharedRing.open(writer.fd);
  t.teardown(() => second.close());
  t.throws(() => second.read(), { code: 'ERR_ZEROSEND_BUSY', message: new RegExp(`process ${process.pid}`) });
  await t.throwsAsync(
    async () => {
      second.write('x');
      await second.drained();
    },
    { code: 'ERR_ZEROSEND_BUSY', message: /already has a writer/ },
  );
  reader.close();
  await t.throwsAsync(
    async () => {
      writer.write('x');
      await writer.drained();
    },
    { code: 'ERR_ZEROSEND_CLOSED', message: /reader/ },
  );
  t.throws(() => writer.write('x'), { code: 'ERR_ZEROSEND_CLOSED' }, 'a second call fails too');
  await t.throwsAsync(SharedRing.create(null, { capacity: 0 }), { message: /invalid capacity 0/ });
  await t.throwsAsync(SharedRing.create(null, { framing: 'x' as 'bytes' }), { message: /invalid framing 'x'/ });
  await t.throwsAsync(SharedRing.open('zerosend-no-such-ring'), { code: 'ENOENT' });
});

test.serial('with reuse, messages share memory, which grows for a larger one', async (t) => {
  const writer = await ring(t, null, { capacity: 300_000 });
  const reader = await SharedRing.open(writer.fd, { reuse: true });
  t.teardown(() => reader.close());
  const memories = new Set<ArrayBufferLike>();
  for (let n = 0; n < 200; n++) {
    writer.write(Buffer.alloc(n === 100 ? 200_000 : 1000, n));
    await writer.drained();
    const message = reader.read();
    t.true(message?.every((byte) => byte === n));
    memories.add((message as Buffer).buffer);
  }
  t.is(memories.size, 2, 'the memory is replaced once, for the large message');
});

test.serial('a dead writer is reported after all of its messages were read, and another can replace it', async (t) => {
  const name = named(t, 'dying');
  const reader = await ring(t, name, { capacity: 8192 });
  const program = `const ring = await SharedRing.open(name);
    for (let n = 0; ; n++) { if (!ring.write('n ' + n)) await ring.drained(); if (n === 500) console.log('ready'); }`;
  for (let round = 0; round < 5; round++) {
    const child = script(t, program, name);
    let next = 0;
    const error = await t.throwsAsync(
      async () => {
        for await (const message of reader) {
          t.is(message.toString(), `n ${next}`);
          next += 1;
          if (next === 600 + round * 100) child.kill('SIGKILL');
        }
      },
      { code: 'ERR_ZEROSEND_PEER_DIED', message: new RegExp(`process ${child.pid}`) },
    );
    t.truthy(error);
    t.true(next >= 600);
  }
  // A dead reader is reported when the ring is full, and the next reader gets the messages.
  const other = named(t, 'dying-reader');
  const writer = await ring(t, other, { capacity: 4096 });
  const child = script(
    t,
    `const ring = await SharedRing.open(name); await ring.readable(); console.log('reading'); setInterval(() => {}, 1000);`,
    other,
  );
  writer.write('first');
  await once(child.stdout as NodeJS.ReadableStream, 'data');
  child.kill('SIGKILL');
  await once(child, 'close');
  for (let n = 0; n < 10; n++) writer.write(Buffer.alloc(1000, n));
  await t.throwsAsync(writer.drained(), { code: 'ERR_ZEROSEND_PEER_DIED', message: /reader/ });
  const next = await SharedRing.open(other);
  t.teardown(() => next.close());
  const drained = writer.end();
  let count = 0;
  for await (const message of next) {
    t.is(message[0], count);
    count += 1;
  }
  t.is(count, 10);
  await drained;
});

test.serial('pipeTo sends to a socket and to a file', async (t) => {
  const data = pattern(2_000_000);
  for (const framing of ['messages', 'bytes'] as const) {
    const writer = await ring(t, null, { capacity: 64 * 1024, framing });
    const source = await SharedRing.open(writer.fd);
    const { server, client } = await pair(t);
    server.write('head ');
    const piping = source.pipeTo(server);
    t.throws(() => source.read(), { code: 'ERR_ZEROSEND_BUSY' });
    const received = readAll(client);
    for (let at = 0; at < data.length; at += 5003) {
      if (!writer.write(data.subarray(at, at + 5003))) await writer.drained();
    }
    await writer.end();
    t.is(await piping, data.length);
    server.end(' tail');
    t.is(sha256(await received), sha256(Buffer.concat([Buffer.from('head '), data, Buffer.from(' tail')])));
    source.close();
  }
  const writer = await ring(t, null, { framing: 'bytes' });
  const source = await SharedRing.open(writer.fd);
  t.teardown(() => source.close());
  const path = join(scratch(t), 'out');
  const stop = new AbortController();
  const cancelled = source.pipeTo(path, { signal: stop.signal });
  writer.write(data.subarray(0, 500_000));
  await until(() => statSync(path, { throwIfNoEntry: false })?.size === 500_000);
  stop.abort();
  await t.throwsAsync(cancelled, { code: 'ABORT_ERR' });
  t.is(sha256(readFileSync(path)), sha256(data.subarray(0, 500_000)));
  writer.write('more');
  // An invalid target does not change the ring.
  await t.throwsAsync(source.pipeTo(join(path, 'none')), { code: 'ENOTDIR' });
  await t.throwsAsync(source.pipeTo(99_999), { code: 'EBADF' });
  const { server } = await pair(t);
  server.destroy();
  await t.throwsAsync(source.pipeTo(server), { code: 'ERR_ZEROSEND_CLOSED' });
});

test.serial('a wait keeps the process alive, and close() rejects it', async (t) => {
  const before = openDescriptors();
  const closing = await SharedRing.create(null);
  const waiting = closing.readable();
  setTimeout(() => closing.close(), 50);
  await t.throwsAsync(waiting, { code: 'ERR_ZEROSEND_CLOSED' });
  const child = script(
    t,
    `const ring = await SharedRing.create(null); setTimeout(() => { ring.close(); }, 100);
     await ring.readable().catch((error) => console.log(error.code));`,
    '',
  );
  t.is((await readAll(child.stdout as NodeJS.ReadableStream)).toString().trim(), 'ERR_ZEROSEND_CLOSED');
  await settled(t, before);
});
