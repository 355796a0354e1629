/**
 * The size of a pipe: 64 KiB by default, a power of two of pages, up to what /proc/sys/fs/pipe-max-size allows. Larger pipes need fewer
 * calls; beyond what a socket takes at once they gain nothing.
 *
 *   npx tsx examples/3-splice/pipe-tuning.ts
 *
 * Look for: sizes are rounded up; the processor time of a relay falls with the size of its pipes, its speed hardly.
 *
 *   pipes are of 65536 bytes, at most 1048576 for unprivileged users, 67108864 in all
 *   asked for 100000, got 131072
 *        4 KiB pipes:  359 MB/s, 266 ms of processor time
 *       64 KiB pipes:  369 MB/s, 213 ms of processor time
 *      256 KiB pipes:  576 MB/s, 143 ms of processor time
 *     1024 KiB pipes:  391 MB/s, 184 ms of processor time
 */
import { createEchoServer, Pipe, probe } from 'zerosend';

import { drain, MIB, rate, timed } from '../common.js';

const { pipes, pageSize } = await probe();
const all = pipes.userPagesSoft * pageSize;
console.log(`pipes are of ${pipes.defaultSize} bytes, at most ${pipes.maxSize} for unprivileged users, ${all} in all`);
const pipe = new Pipe();
console.log(`asked for 100000, got ${pipe.resize(100_000)}`);
pipe.close();

const { connect } = await import('node:net');
const bytes = Buffer.alloc(64 * MIB, 'x');
for (const kib of [4, 64, 256, 1024]) {
  const server = await createEchoServer({ pipeSize: kib * 1024, method: 'splice', workers: 1 });
  const { port } = server.address as { port: number };
  const { ms, cpuMs } = await timed(async () => {
    const client = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    client.end(bytes);
    if ((await drain(client)).bytes !== bytes.length) throw new Error('not all came back');
  });
  console.log(
    `${String(kib).padStart(6)} KiB pipes: ${rate(bytes.length, ms).padStart(9)}, ${cpuMs.toFixed(0)} ms of processor time`,
  );
  await server.close();
}
