/**
 * Cost of sending a file with read and write: every byte is copied from the page cache into a buffer of this process and from there
 * into the socket, with two system calls per buffer. `sendfile` avoids both copies and most of the calls.
 *
 *   npx tsx examples/1-fundamentals/traditional-io.ts
 *
 * Look for: small buffers cost system calls, large buffers still cost copies; the saving shows in the CPU time.
 *
 *   read + write, 4 KiB     :    58 MB/s,  1232 ms of CPU time, 32768 calls
 *   read + write, 64 KiB    :   413 MB/s,   194 ms of CPU time, 2048 calls
 *   read + write, 1 MiB     :   704 MB/s,   118 ms of CPU time, 128 calls
 *   createReadStream().pipe :   435 MB/s,   185 ms of CPU time
 *   sendFile                :   470 MB/s,   159 ms of CPU time, 125 calls, by sendfile
 *   all receivers got identical 67108864 bytes
 */
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Socket } from 'node:net';

import { sendFile } from 'zerosend';

import { connection, MIB, makeFile, rate, sha256, timed } from '../common.js';

const BYTES = 64 * MIB;
const path = makeFile(BYTES);
const expected = sha256(path);

async function readAndWrite(socket: Socket, size: number): Promise<string> {
  const file = await open(path);
  let calls = 0;
  for (let at = 0; at < BYTES; at += size) {
    const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(size), 0, size, at);
    calls += 2;
    if (!socket.write(buffer.subarray(0, bytesRead))) await once(socket, 'drain');
  }
  await file.close();
  return `${calls} calls`;
}

async function pipe(socket: Socket): Promise<string> {
  const stream = createReadStream(path);
  stream.pipe(socket, { end: false });
  await once(stream, 'end');
  return '';
}

async function zeroCopy(socket: Socket): Promise<string> {
  const { syscalls, method } = await sendFile(socket, path);
  return `${syscalls} calls, by ${method}`;
}

const methods: [string, (socket: Socket) => Promise<string>][] = [
  ['read + write, 4 KiB', (socket) => readAndWrite(socket, 4096)],
  ['read + write, 64 KiB', (socket) => readAndWrite(socket, 65_536)],
  ['read + write, 1 MiB', (socket) => readAndWrite(socket, MIB)],
  ['createReadStream().pipe', pipe],
  ['sendFile', zeroCopy],
];
for (const [name, send] of methods) {
  const { socket, received } = await connection();
  const { result, ms, cpuMs } = await timed(async () => {
    const details = await send(socket);
    socket.end();
    const { bytes, hash } = await received;
    if (bytes !== BYTES || hash !== expected) throw new Error(`${name}: the received bytes differ`);
    return details;
  });
  const details = result === '' ? '' : `, ${result}`;
  console.log(
    `${name.padEnd(24)}: ${rate(BYTES, ms).padStart(10)}, ${cpuMs.toFixed(0).padStart(5)} ms of CPU time${details}`,
  );
}
console.log(`all receivers got identical ${BYTES} bytes`);
