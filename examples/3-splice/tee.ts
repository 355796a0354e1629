/**
 * tee(2): the pages of one pipe are in two, and no byte was copied. First by hand, then a stream that goes to a client, a log file and
 * a monitor at once, one of which is too slow.
 *
 *   npx tsx examples/3-splice/tee.ts
 *
 * Look for: after `tee` the bytes are still in the first pipe; under 'drop' a slow sink misses bytes and holds up nobody, under
 * 'block' all wait for it and have everything.
 *
 *   tee(2) copied 11 bytes: 'hello world' and 'hello world'
 *   drop: 33554432 bytes came, the slow one missed some; each got or missed all of them
 *   block: client, file and the slow one have the same 33554432 bytes
 */
import { readSync } from 'node:fs';
import { join } from 'node:path';

import { createSplitter, Pipe, sendFile, tee, vmsplice } from 'zerosend';

import { connection, drain, MIB, makeFile, scratch, sha256 } from '../common.js';

const [first, second] = [new Pipe(), new Pipe()];
vmsplice(first, Buffer.from('hello world'));
const copied = tee(first, second, 65_536);
const text = (pipe: Pipe) => {
  const buffer = Buffer.alloc(100);
  return buffer.toString('utf8', 0, readSync(pipe.readFd, buffer));
};
console.log(`tee(2) copied ${copied} bytes: '${text(first)}' and '${text(second)}'`);

const path = makeFile(32 * MIB);
for (const policy of ['drop', 'block'] as const) {
  const [source, client, slow] = [await connection(false), await connection(), await connection(false)];
  const log = join(scratch(), 'log');
  const splitter = await createSplitter(source.peer, [client.socket, { file: log }, slow.socket], { policy });
  const sending = sendFile(source.socket, path).then(() => source.socket.end());
  // Under 'drop' nobody reads it before all is over; under 'block' that would be never.
  const late = policy === 'block' ? drain(slow.peer) : undefined;
  await sending;
  if (policy === 'drop') setTimeout(() => slow.peer.resume(), 500);
  const { bytes, sinks } = await splitter.finished;
  if (policy === 'drop') {
    const whole = sinks.every((sink) => sink.bytes + sink.dropped === bytes);
    const missed = (sinks[2]?.dropped ?? 0) > 0 ? 'some' : 'none';
    console.log(
      `drop: ${bytes} bytes came, the slow one missed ${missed}; ${whole ? 'each got or missed all of them' : 'some were lost'}`,
    );
  } else {
    const hashes = [(await client.received).hash, sha256(log), (await late)?.hash];
    const same = hashes.every((hash) => hash === sha256(path));
    console.log(`block: client, file and the slow one have ${same ? 'the same' : 'different'} ${bytes} bytes`);
  }
  slow.peer.destroy();
}
