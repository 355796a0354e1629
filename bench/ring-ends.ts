// One run of the comparison of message channels: `ring-ends.ts send <variant> <bytes> <messages> <receiver's core>` starts a receiver
// (this file with `receive`), sends, waits until all messages are received, and prints JSON.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { Pipe, SharedRing } from 'zerosend';

const BATCH = 32 * 1024;
/** Maximum of unacknowledged messages to a worker. */
const WINDOW = 1000;
/** JavaScript, because workers of Node 20 do not run TypeScript. */
const POSTED = `
  const { parentPort } = require('node:worker_threads');
  let left;
  let received = 0;
  parentPort.on('message', (message) => {
    if (typeof message === 'number') {
      left = message;
      parentPort.postMessage(0);
      return;
    }
    received += 1;
    if (received % ${WINDOW / 4} === 0 || received === left) parentPort.postMessage(received);
  });`;
const SELF = fileURLToPath(import.meta.url);
const [role, variant = '', ...numbers] = process.argv.slice(2);

if (role === 'send') await send(...(numbers.map(Number) as [number, number, number]));
else await receive(variant, numbers);

async function send(size: number, count: number, core: number): Promise<void> {
  const message = Buffer.alloc(size, 'x');
  const directory = mkdtempSync(join(tmpdir(), 'zerosend-bench-ring-'));
  let child: ChildProcess | undefined;
  /** Starts the receiver, which prints when it is ready and when it has received everything. */
  const start = async (args: string[], stdio: ('ignore' | number)[]) => {
    const node = [process.execPath, '--import', import.meta.resolve('tsx'), SELF, 'receive', variant, ...args];
    child = spawn('taskset', ['-c', String(core), ...node], {
      stdio: [stdio[0] ?? 'ignore', 'pipe', 'inherit', ...stdio.slice(1)],
    });
    await once(child.stdout!, 'data');
  };
  let begun = 0;
  const finish = async () => {
    if (child !== undefined) await once(child.stdout!, 'data');
    console.log(JSON.stringify({ seconds: (performance.now() - begun) / 1000 }));
    child?.kill();
    rmSync(directory, { recursive: true });
  };
  switch (variant) {
    case 'ring':
    case 'ring, reuse': {
      const ring = await SharedRing.create(null);
      await start([String(count)], ['ignore', ring.fd]);
      begun = performance.now();
      for (let sent = 0; sent < count; sent++) if (!ring.write(message)) await ring.drained();
      await ring.end();
      return await finish();
    }
    case 'unix socket':
    case 'unix socket, batched': {
      const path = join(directory, 'socket');
      await start([String(count), path], []);
      const socket = connect(path);
      await once(socket, 'connect');
      begun = performance.now();
      await sendFrames(socket, message, count);
      await finish();
      socket.destroy();
      return;
    }
    case 'pipe':
    case 'pipe, batched': {
      const pipe = new Pipe();
      await start([String(count)], [pipe.readFd]);
      const socket = new Socket({ fd: pipe.writeFd, readable: false, writable: true });
      begun = performance.now();
      await sendFrames(socket, message, count);
      await finish();
      process.exit();
      break;
    }
    case 'postMessage': {
      const worker = new Worker(POSTED, { eval: true });
      let acknowledged = 0;
      let wake = () => {};
      worker.on('message', (received: number) => {
        acknowledged = received;
        wake();
      });
      worker.postMessage(count);
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      begun = performance.now();
      const untilPending = async (max: number, sent: number) => {
        while (sent - acknowledged > max) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      };
      for (let sent = 0; sent < count; sent++) {
        worker.postMessage(message);
        if (sent - acknowledged > WINDOW) await untilPending(WINDOW, sent);
      }
      await untilPending(0, count);
      await finish();
      process.exit();
      break;
    }
    default:
      throw new Error(`unknown variant '${variant}'`);
  }
}

/** Writes each message after its length in 4 bytes. Batched variants put up to 32 KiB of messages into one write. */
async function sendFrames(socket: Socket, message: Buffer, count: number): Promise<void> {
  const frame = Buffer.concat([Buffer.from(new Uint32Array([message.length]).buffer), message]);
  const together = variant.endsWith('batched') ? Math.max(1, Math.floor(BATCH / frame.length)) : 1;
  for (let sent = 0; sent < count; ) {
    const now = Math.min(together, count - sent);
    let bytes = frame;
    if (together > 1) {
      bytes = Buffer.allocUnsafe(now * frame.length);
      for (let at = 0; at < now; at++) bytes.set(frame, at * frame.length);
    }
    sent += now;
    if (!socket.write(bytes)) await once(socket, 'drain');
  }
}

async function receive(variant: string, [count, path = '']: string[]): Promise<void> {
  const done = () => process.stdout.write('done');
  let left = Number(count);
  if (variant.startsWith('ring')) {
    const ring = await SharedRing.open(3, { reuse: variant === 'ring, reuse' });
    process.stdout.write('ready');
    while (await ring.readable()) {
      for (let message = ring.read(); message !== null; message = ring.read()) left -= 1;
    }
    if (left === 0) done();
    return;
  }
  let rest: Buffer = Buffer.alloc(0);
  const take = (chunk: Buffer) => {
    let bytes: Buffer = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (bytes.length >= 4) {
      const end = 4 + bytes.readUInt32LE(0);
      if (end > bytes.length) break;
      const message = bytes.subarray(4, end);
      left -= message.length > 0 ? 1 : 0;
      bytes = bytes.subarray(end);
    }
    rest = bytes;
    if (left === 0) done();
  };
  if (path === '') {
    new Socket({ fd: 0, readable: true, writable: false }).on('data', take);
    process.stdout.write('ready');
    return;
  }
  const server = createServer((socket) => socket.on('data', take)).listen(path);
  await once(server, 'listening');
  process.stdout.write('ready');
}
