/**
 * Bytes from memory before, between and after files in one transfer: a response header and a small body leave in one call (writev(2);
 * for larger bodies `MSG_MORE` before `sendfile`), a multipart body and its boundaries in order.
 *
 *   npx tsx examples/2-sendfile/heads.ts
 *
 * Look for: the number of calls for a small file and its header (one read and one write); JavaScript concatenates nothing.
 *
 *   header and 1000 bytes: 2 calls, by read-write
 *   header and 1000000 bytes: 4 calls, by sendfile
 *   three parts of two files with boundaries: 101238 bytes, 9 calls
 */
import { sendFile, sendFiles } from 'zerosend';

import { connection, makeFile } from '../common.js';

const [small, large] = [makeFile(1000), makeFile(1_000_000)];
for (const [path, bytes] of [
  [small, 1000],
  [large, 1_000_000],
] as const) {
  const { socket, received } = await connection();
  const head = `HTTP/1.1 200 OK\r\nContent-Length: ${bytes}\r\n\r\n`;
  const { syscalls, method } = await sendFile(socket, path, { head });
  socket.end();
  if ((await received).bytes !== head.length + bytes) throw new Error('the received length differs');
  console.log(`header and ${bytes} bytes: ${syscalls} calls, by ${method}`);
}

const boundary = (number: number) => Buffer.from(`\r\n--b\r\nContent-Type: text/plain; part=${number}\r\n\r\n`);
const { socket, received } = await connection();
const { bytes, syscalls } = await sendFiles(socket, [
  boundary(1),
  { file: small },
  boundary(2),
  { file: large, offset: 500, length: 100_000 },
  boundary(3),
  { file: small, offset: 900 },
  Buffer.from('\r\n--b--\r\n'),
]);
socket.end();
if ((await received).bytes !== bytes) throw new Error('the received length differs');
console.log(`three parts of two files with boundaries: ${bytes} bytes, ${syscalls} calls`);
