/**
 * Sends one file with every method and compares speed, CPU time and system calls.
 *
 *   npx tsx examples/4-mmap/compare-all.ts [--size 32]     (MiB)
 *
 * Look for: the number of calls and the CPU time of the whole process (including the receiver). A single run is noisy; use
 * `npx zerosend bench` for reliable figures.
 *
 *   method      MB/s         CPU ms  calls
 *   read-write   356           108    548
 *   mmap         705            57     72
 *   sendfile     607            71     61
 *   splice       664            61    330
 *   vmsplice     638            58    474
 *   all receivers got identical bytes
 */
import { type Method, sendFile } from 'zerosend';

import { connection, MIB, makeFile, option, rate, sha256, timed } from '../common.js';

const bytes = Number(option('size', '32')) * MIB;
const path = makeFile(bytes);
const expected = sha256(path);
const methods: Method[] = ['read-write', 'mmap', 'sendfile', 'splice', 'vmsplice'];
console.log('method      MB/s         CPU ms  calls');
for (const method of methods) {
  const { socket, received } = await connection();
  const { result, ms, cpuMs } = await timed(async () => {
    const sent = await sendFile(socket, path, { method });
    socket.end();
    if ((await received).hash !== expected) throw new Error(`${method}: the received bytes differ`);
    return sent;
  });
  const speed = rate(bytes, ms).replace(' MB/s', '');
  console.log(
    `${result.method.padEnd(10)} ${speed.padStart(5)} ${cpuMs.toFixed(0).padStart(13)} ${String(result.syscalls).padStart(6)}`,
  );
}
console.log('all receivers got identical bytes');
