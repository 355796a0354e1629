/**
 * TCP_CORK against TCP_NODELAY: many small parts and a file, as one response. With `cork` the kernel sends full packets only, until
 * the transfer ends; with `cork: false` and `noDelay` each part leaves by itself, at once.
 *
 *   npx tsx examples/2-sendfile/cork.ts
 *
 * Look for: how many times the receiver's socket had something (each a packet or several). Latency wants few bytes soon, throughput
 * wants full packets: cork while there is more to come, never for a part that somebody waits for.
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
