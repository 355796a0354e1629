/**
 * Sending a mapped file: the kernel copies from the page cache into the socket, one copy less than read and write, one more than
 * sendfile. Large files go in windows, so that no address space for all of it is needed.
 *
 *   npx tsx examples/4-mmap/send.ts
 *
 * Look for: one system call for each stretch; a file that gets shorter meanwhile ends the transfer with an error and no signal.
 *
 *   67108864 bytes by mmap, 160 calls, the same
 *   cut while it was sent: ERR_ZEROSEND_TRUNCATED after 4174336 bytes
 */
import { truncateSync } from 'node:fs';

import { sendFile } from 'zerosend';

import { connection, MIB, makeFile, sha256 } from '../common.js';

const path = makeFile(64 * MIB);
const one = await connection();
const { bytes, method, syscalls } = await sendFile(one.socket, path, { method: 'mmap', chunkSize: 8 * MIB });
one.socket.end();
console.log(
  `${bytes} bytes by ${method}, ${syscalls} calls, ${(await one.received).hash === sha256(path) ? 'the same' : 'something else'}`,
);

const two = await connection(false);
const sending = sendFile(two.socket, path, { method: 'mmap' });
const cut = setTimeout(() => {
  truncateSync(path, 0);
  two.peer.resume();
}, 100);
await sending.catch((error: NodeJS.ErrnoException & { bytes: number }) => {
  console.log(`cut while it was sent: ${error.code} after ${error.bytes} bytes`);
});
clearTimeout(cut);
two.socket.destroy();
two.peer.destroy();
