/**
 * Sends one file to one socket with one call; the bytes go from the page cache to the socket inside the kernel.
 *
 *   npx tsx examples/2-sendfile/basic.ts
 *
 * Look for: the method and the small number of system calls; a part of the file by `offset` and `length`; data written to the socket
 * before and after the transfer stays in order; the error messages.
 *
 *   the whole file: 5000000 bytes by sendfile, 7 calls, 15 ms
 *   a part: 1000 bytes from offset 4096, by read-write
 *   received 5001024 bytes: before, the file, the part, after
 *   ENOENT: No such file or directory, open '/no/such/file'
 *   ERR_ZEROSEND_OUT_OF_RANGE: invalid offset 5000001: the file has 5000000 bytes
 */
import { sendFile } from 'zerosend';

import { connection, makeFile } from '../common.js';

const path = makeFile(5_000_000);
const { socket, received } = await connection();
socket.write('before, 12 B');
const whole = await sendFile(socket, path);
console.log(
  `the whole file: ${whole.bytes} bytes by ${whole.method}, ${whole.syscalls} calls, ${whole.durationMs.toFixed(0)} ms`,
);
const part = await sendFile(socket, path, { offset: 4096, length: 1000 });
console.log(`a part: ${part.bytes} bytes from offset 4096, by ${part.method}`);
socket.end('after, 12 B.');
console.log(`received ${(await received).bytes} bytes: before, the file, the part, after`);

const { socket: another } = await connection();
for (const [file, options] of [
  ['/no/such/file', {}],
  [path, { offset: 5_000_001 }],
] as const) {
  await sendFile(another, file, options).catch((error: NodeJS.ErrnoException) => {
    console.log(error.syscall === undefined ? `${error.code}: ${error.message}` : error.message);
  });
}
another.destroy();
