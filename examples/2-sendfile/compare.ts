/**
 * `sendfile` beside reading and writing, for files of different sizes: when does it win?
 *
 *   npx tsx examples/2-sendfile/compare.ts
 *
 * Look for: with small files the calls count and not the copies, so a read and a write are as good; with large ones sendfile takes
 * the least processor time. (`npx zerosend bench` does this properly: rounds, medians, a receiver on its own core.)
 *
 *        1 KiB: read-write 1.00, sendfile 0.90 times as fast, with 1.23 of the processor time
 *       64 KiB: read-write 1.00, sendfile 0.94 times as fast, with 1.05 of the processor time
 *     4096 KiB: read-write 1.00, sendfile 0.92 times as fast, with 1.11 of the processor time
 */
import { type Method, sendFile } from 'zerosend';

import { connection, MIB, makeFile, timed } from '../common.js';

async function measure(path: string, size: number, method: Method): Promise<{ ms: number; cpuMs: number }> {
  const { socket, received } = await connection();
  const times = Math.max(1, Math.min(2000, Math.floor((32 * MIB) / size)));
  const { ms, cpuMs } = await timed(async () => {
    for (let at = 0; at < times; at++) await sendFile(socket, path, { method });
    socket.end();
    await received;
  });
  return { ms, cpuMs };
}

for (const size of [1024, 65_536, 4 * MIB]) {
  const path = makeFile(size);
  await measure(path, size, 'read-write');
  const [plain, zero] = [await measure(path, size, 'read-write'), await measure(path, size, 'sendfile')];
  const times = `${(plain.ms / zero.ms).toFixed(2)} times as fast`;
  const cost = `${(zero.cpuMs / plain.cpuMs).toFixed(2)} of the processor time`;
  console.log(`${String(size / 1024).padStart(6)} KiB: read-write 1.00, sendfile ${times}, with ${cost}`);
}
