/**
 * splice(2) from file to socket, socket to file and file to file, always with a pipe in between. Pages move inside the kernel; one call
 * moves them into the pipe, another out of it.
 *
 *   npx tsx examples/3-splice/basic.ts
 *
 * Look for: every byte arrives without passing through a buffer of this process. (`sendfile` does the same with an internal pipe.)
 *
 *   file -> pipe -> socket: 1000000 bytes, identical
 *   socket -> pipe -> file: 1000000 bytes, identical
 *   file -> pipe -> file:   1000000 bytes, identical, 32 calls
 *   without a pipe: ERR_ZEROSEND_INVALID_ARGUMENT
 */
import { openSync } from 'node:fs';
import { join } from 'node:path';

import { fileToPipe, Pipe, pipeToFile, sendFile, splice } from 'zerosend';

import { connection, makeFile, scratch, sha256 } from '../common.js';

const BYTES = 1_000_000;
const path = makeFile(BYTES);
const compare = (hash: string) => (hash === sha256(path) ? 'identical' : 'different');

const out = await connection();
const { bytes } = await sendFile(out.socket, path, { method: 'splice' });
out.socket.end();
console.log(`file -> pipe -> socket: ${bytes} bytes, ${compare((await out.received).hash)}`);

const back = await connection(false);
const copy = join(scratch(), 'copy');
const receiving = pipeToFile(back.peer, copy);
await sendFile(back.socket, path);
back.socket.end();
console.log(`socket -> pipe -> file: ${(await receiving).bytes} bytes, ${compare(sha256(copy))}`);

// One system call at a time.
const [from, to] = [openSync(path, 'r'), openSync(join(scratch(), 'another'), 'w+')];
const pipe = new Pipe();
let [at, calls] = [0, 0];
while (at < BYTES) {
  // null: the bytes are still being read from the disk.
  const inside = splice(from, pipe, pipe.size, { fromOffset: at });
  for (let left = inside ?? 0; left > 0; calls++) left -= splice(pipe, to, left) ?? 0;
  at += inside ?? 0;
  calls += 1;
}
console.log(`file -> pipe -> file:   ${at} bytes, ${compare(sha256(`/proc/self/fd/${to}`))}, ${calls} calls`);

try {
  splice(from, to, 4096);
} catch (error) {
  console.log(`without a pipe: ${(error as NodeJS.ErrnoException).code}`);
}
const filled = new Pipe();
await fileToPipe(path, filled, { length: 10_000 });
if (filled.available !== 10_000) throw new Error(`the pipe holds ${filled.available} bytes`);
