/**
 * vmsplice(2): memory of this process into a pipe, by reference. Without SPLICE_F_GIFT the kernel still only refers to the pages: what
 * is written to them later is what the reader gets, contrary to what is often taught. `gift` says that you will not touch them again;
 * zerosend takes the memory away from JavaScript then, so that you cannot.
 *
 *   npx tsx examples/3-splice/vmsplice.ts
 *
 * Look for: the buffer of length 0 after it was given; a copy without `gift`.
 *
 *   given: 1048576 bytes by vmsplice, the buffer has 0 bytes now
 *   received 1048576 bytes, the same
 *   without gift: 1048576 bytes, the buffer still has 1048576 bytes, and changing it changes nothing
 *   memory that is not from allocPages: ERR_ZEROSEND_INVALID_ARGUMENT
 */
import { allocPages, sendPages } from 'zerosend';

import { connection, MIB, sha256 } from '../common.js';

const fill = (buffer: Buffer) => {
  for (let at = 0; at < buffer.length; at += 4) buffer.writeUInt32LE(at, at);
  return buffer;
};
const given = fill(allocPages(MIB));
const expected = sha256(given);
const one = await connection();
const { bytes, method } = await sendPages(one.socket, given, { gift: true });
console.log(`given: ${bytes} bytes by ${method}, the buffer has ${given.length} bytes now`);
one.socket.end();
const received = await one.received;
console.log(`received ${received.bytes} bytes, ${received.hash === expected ? 'the same' : 'something else'}`);

const kept = fill(allocPages(MIB));
const two = await connection();
const sending = sendPages(two.socket, kept);
kept.fill(0);
const { bytes: copied } = await sending;
two.socket.end();
const changes = (await two.received).hash === expected ? 'nothing' : 'what was received';
console.log(
  `without gift: ${copied} bytes, the buffer still has ${kept.length} bytes, and changing it changes ${changes}`,
);

const three = await connection();
await sendPages(three.socket, Buffer.alloc(4096), { gift: true }).catch((error: NodeJS.ErrnoException) => {
  console.log(`memory that is not from allocPages: ${error.code}`);
});
three.socket.destroy();
