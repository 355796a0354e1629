/**
 * tee(2) duplicates the contents of a pipe into a second pipe without copying. First the system call itself, then a stream that goes to
 * a client, a log file and a slow sink at once.
 *
 *   npx tsx examples/3-splice/tee.ts
 *
 * Look for: after `tee` the bytes are still in the first pipe. With 'drop' a slow sink misses bytes and does not delay the others; with
 * 'block' the others wait for it and every sink receives everything.
 *
 *   tee(2) duplicated 11 bytes: 'hello world' and 'hello world'
 *   drop: 33554432 bytes, slow sink missed some; every byte was delivered or counted as dropped
 *   block: client, file and slow sink received identical 33554432 bytes
 */
import { readSync } from 'node:fs';
import { join } from 'node:path';

import { createSplitter, Pipe, sendFile, tee, vmsplice } from 'zerosend';

import { connection, drain, MIB, makeFile, scratch, sha256 } from '../common.js';

const [first, second] = [new Pipe(), new Pipe()];
vmsplice(first, Buffer.from('hello world'));
const duplicated = tee(first, second, 65_536);
const text = (pipe: Pipe) => {
  const buffer = Buffer.alloc(100);
  return buffer.toString('utf8', 0, readSync(pipe.readFd, buffer));
};
console.log(`tee(2) duplicated ${duplicated} bytes: '${text(first)}' and '${text(second)}'`);

const path = makeFile(32 * MIB);
for (const policy of ['drop', 'block'] as const) {
  const [source, client, slow] = [await connection(false), await connection(), await connection(false)];
  const log = join(scratch(), 'log');
  const splitter = await createSplitter(source.peer, [client.socket, { file: log }, slow.socket], { policy });
  const sending = sendFile(source.socket, path).then(() => source.socket.end());
  // With 'drop' the slow sink is read only after the transfer; with 'block' the transfer would wait for it indefinitely.
  const late = policy === 'block' ? drain(slow.peer) : undefined;
  await sending;
  if (policy === 'drop') setTimeout(() => slow.peer.resume(), 500);
  const { bytes, sinks } = await splitter.finished;
  if (policy === 'drop') {
    const whole = sinks.every((sink) => sink.bytes + sink.dropped === bytes);
    const missed = (sinks[2]?.dropped ?? 0) > 0 ? 'some' : 'none';
    console.log(
      `drop: ${bytes} bytes, slow sink missed ${missed}; ${whole ? 'every byte was delivered or counted as dropped' : 'some are unaccounted for'}`,
    );
  } else {
    const hashes = [(await client.received).hash, sha256(log), (await late)?.hash];
    const same = hashes.every((hash) => hash === sha256(path));
    console.log(`block: client, file and slow sink received ${same ? 'identical' : 'different'} ${bytes} bytes`);
  }
  slow.peer.destroy();
}
