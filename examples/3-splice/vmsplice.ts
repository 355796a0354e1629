/**
 * vmsplice(2) puts memory of this process into a pipe by reference. Without SPLICE_F_GIFT the kernel still only refers to the pages, so
 * the reader would receive later writes to them; zerosend therefore sends a copy. With `gift` the caller promises not to touch the pages
 * again; zerosend detaches the buffer from JavaScript to enforce this.
 *
 *   npx tsx examples/3-splice/vmsplice.ts
 *
 * Look for: the buffer has length 0 after `gift`; without `gift` later writes do not change the sent bytes.
 *
 *   with gift: 1048576 bytes by vmsplice, the buffer has 0 bytes afterwards
 *   received 1048576 bytes, identical
 *   without gift: 1048576 bytes, the buffer still has 1048576 bytes, later writes change nothing
 *   memory not allocated by allocPages: ERR_ZEROSEND_INVALID_ARGUMENT
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
console.log(`with gift: ${bytes} bytes by ${method}, the buffer has ${given.length} bytes afterwards`);
one.socket.end();
const received = await one.received;
console.log(`received ${received.bytes} bytes, ${received.hash === expected ? 'identical' : 'different'}`);

const kept = fill(allocPages(MIB));
const two = await connection();
const sending = sendPages(two.socket, kept);
kept.fill(0);
const { bytes: sent } = await sending;
two.socket.end();
const changed = (await two.received).hash === expected ? 'nothing' : 'the received bytes';
console.log(`without gift: ${sent} bytes, the buffer still has ${kept.length} bytes, later writes change ${changed}`);

const three = await connection();
await sendPages(three.socket, Buffer.alloc(4096), { gift: true }).catch((error: NodeJS.ErrnoException) => {
  console.log(`memory not allocated by allocPages: ${error.code}`);
});
three.socket.destroy();
