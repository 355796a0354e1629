/**
 * Sends a mapped file: the kernel copies from the page cache into the socket, one copy fewer than read and write, one more than
 * sendfile. Large files are mapped in windows, so that a transfer does not need address space for the whole file.
 *
 *   npx tsx examples/4-mmap/send.ts
 *
 * Look for: a file truncated during the transfer fails the transfer with an error; the process does not receive SIGBUS.
 *
 *   67108864 bytes by mmap, 160 calls, identical
 *   truncated during the transfer: ERR_ZEROSEND_TRUNCATED after 4174336 bytes
 */
import { truncateSync } from 'node:fs';

import { sendFile } from 'zerosend';

import { connection, MIB, makeFile, sha256 } from '../common.js';

const path = makeFile(64 * MIB);
const one = await connection();
const { bytes, method, syscalls } = await sendFile(one.socket, path, { method: 'mmap', chunkSize: 8 * MIB });
one.socket.end();
console.log(
  `${bytes} bytes by ${method}, ${syscalls} calls, ${(await one.received).hash === sha256(path) ? 'identical' : 'different'}`,
);

const two = await connection(false);
const sending = sendFile(two.socket, path, { method: 'mmap' });
const timer = setTimeout(() => {
  truncateSync(path, 0);
  two.peer.resume();
}, 100);
await sending.catch((error: NodeJS.ErrnoException & { bytes: number }) => {
  console.log(`truncated during the transfer: ${error.code} after ${error.bytes} bytes`);
});
clearTimeout(timer);
two.socket.destroy();
two.peer.destroy();
