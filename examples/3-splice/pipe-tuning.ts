/**
 * Pipe sizes: 64 KiB by default, always a power-of-two number of pages, up to /proc/sys/fs/pipe-max-size. Larger pipes need fewer calls,
 * but a pipe larger than the socket buffer brings nothing.
 *
 *   npx tsx examples/3-splice/pipe-tuning.ts
 *
 * Look for: sizes are rounded up; larger pipes reduce the CPU time of a relay more than they raise its speed.
 *
 *   default pipe size 65536 bytes; limits of unprivileged users: 1048576 per pipe, 67108864 in total
 *   requested 100000, got 131072
 *        4 KiB pipes:  359 MB/s, 266 ms of CPU time
 *       64 KiB pipes:  369 MB/s, 213 ms of CPU time
 *      256 KiB pipes:  576 MB/s, 143 ms of CPU time
 *     1024 KiB pipes:  391 MB/s, 184 ms of CPU time
 */
import { createEchoServer, Pipe, probe } from 'zerosend';

import { drain, MIB, rate, timed } from '../common.js';

const { pipes, pageSize } = await probe();
const total = pipes.userPagesSoft * pageSize;
console.log(
  `default pipe size ${pipes.defaultSize} bytes; limits of unprivileged users: ${pipes.maxSize} per pipe, ${total} in total`,
);
const pipe = new Pipe();
console.log(`requested 100000, got ${pipe.resize(100_000)}`);
pipe.close();

const { connect } = await import('node:net');
const bytes = Buffer.alloc(64 * MIB, 'x');
for (const kib of [4, 64, 256, 1024]) {
  const server = await createEchoServer({ pipeSize: kib * 1024, method: 'splice', workers: 1 });
  const { port } = server.address as { port: number };
  const { ms, cpuMs } = await timed(async () => {
    const client = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    client.end(bytes);
    if ((await drain(client)).bytes !== bytes.length) throw new Error('the echo is incomplete');
  });
  console.log(
    `${String(kib).padStart(6)} KiB pipes: ${rate(bytes.length, ms).padStart(9)}, ${cpuMs.toFixed(0)} ms of CPU time`,
  );
  await server.close();
}
