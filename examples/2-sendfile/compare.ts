/**
 * Compares `sendfile` with read and write for different file sizes.
 *
 *   npx tsx examples/2-sendfile/compare.ts
 *
 * Look for: for small files system calls dominate, so read and write are as fast; for large files sendfile tends to need the least CPU
 * time. A single run is noisy; `npx zerosend bench` measures in rounds, with medians and the receiver on a separate core.
 *
 *        1 KiB: read-write 1.00, sendfile 0.90 times as fast, with 1.23 times the CPU time
 *       64 KiB: read-write 1.00, sendfile 0.94 times as fast, with 1.05 times the CPU time
 *     4096 KiB: read-write 1.00, sendfile 0.92 times as fast, with 1.11 times the CPU time
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
  const cost = `${(zero.cpuMs / plain.cpuMs).toFixed(2)} times the CPU time`;
  console.log(`${String(size / 1024).padStart(6)} KiB: read-write 1.00, sendfile ${times}, with ${cost}`);
}
