/**
 * TCP_CORK and TCP_NODELAY for a response of many small parts. With `cork` the kernel sends only full packets until the transfer ends;
 * with `cork: false` and `noDelay` it sends each part at once in a separate packet.
 *
 *   npx tsx examples/2-sendfile/cork.ts
 *
 * Look for: how many reads the receiver needed (each returns one or more packets). Full packets improve throughput, early packets
 * improve latency: cork while more data follows, but not for a part the receiver is waiting for.
 *
 *   cork: false, noDelay: true :  60 calls, the receiver read 2 times
 *   the default                :  40 calls, the receiver read 1 times
 *   cork: true                 :  62 calls, the receiver read 1 times
 */
import type { Socket } from 'node:net';

import { type SendFilesOptions, sendFiles } from 'zerosend';

import { connection, makeFile } from '../common.js';

const path = makeFile(200);

async function reads(peer: Socket): Promise<number> {
  let count = 0;
  for await (const _ of peer) count += 1;
  peer.end();
  return count;
}

for (const [name, options] of [
  ['cork: false, noDelay: true', { cork: false, noDelay: true, method: 'sendfile' }],
  ['the default', {}],
  ['cork: true', { cork: true, method: 'sendfile' }],
] as [string, SendFilesOptions][]) {
  const { socket, peer } = await connection(false);
  const counting = reads(peer);
  const parts = Array.from({ length: 20 }, (_, number) => [Buffer.from(`part ${number} `), { file: path }]).flat();
  const { syscalls } = await sendFiles(socket, parts, options);
  socket.end();
  console.log(`${name.padEnd(27)}: ${String(syscalls).padStart(3)} calls, the receiver read ${await counting} times`);
}
