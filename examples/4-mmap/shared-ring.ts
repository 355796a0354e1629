/**
 * A message queue in shared memory between a producer and a consumer process. Both sleep while there is nothing to do and detect the
 * death of the other.
 *
 *   npx tsx examples/4-mmap/shared-ring.ts                (starts both and exits)
 *   npx tsx examples/4-mmap/shared-ring.ts --role consumer --name jobs     in one terminal
 *   npx tsx examples/4-mmap/shared-ring.ts --role producer --name jobs     in another; stop one of them in the middle
 *
 * Look for: every message arrives once and in order; a killed peer causes an error instead of an endless wait.
 *
 *   received 200000 messages in order
 *   about 1588000 messages per second through 1 MiB of shared memory
 *   producer killed: ERR_ZEROSEND_PEER_DIED after at least 50000 messages
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { SharedRing } from 'zerosend';

import { option } from '../common.js';

const COUNT = 200_000;
const name = option('name', '');

async function produce(count: number): Promise<void> {
  const ring = await SharedRing.open(name);
  for (let number = 0; number < count; number++) {
    if (!ring.write(`message ${number}`)) await ring.drained();
  }
  await ring.end();
}

async function consume(ring: SharedRing, each: (count: number) => void = () => {}): Promise<number> {
  let count = 0;
  for await (const message of ring) {
    if (message.toString() !== `message ${count}`) throw new Error(`expected message ${count}, got ${message}`);
    count += 1;
    each(count);
  }
  return count;
}

const role = option('role', 'both');
if (role === 'producer') await produce(Number(option('count', `${COUNT}`)));
else if (role === 'consumer') {
  const ring = await SharedRing.create(name);
  console.log(`waiting for a producer on /dev/shm/${name}`);
  await consume(ring)
    .then((count) => console.log(`received ${count} messages in order`))
    .finally(() => ring.unlink());
} else {
  const own = `zerosend-example-${process.pid}`;
  const ring = await SharedRing.create(own);
  const start = (count: number) =>
    spawn(
      process.execPath,
      [...process.execArgv, fileURLToPath(import.meta.url), '--role', 'producer', '--name', own, '--count', `${count}`],
      {
        stdio: ['ignore', 'inherit', 'inherit'],
      },
    );
  try {
    // The first producer is killed while it sends; a second one replaces it.
    const killed = start(10 ** 9);
    const error = await consume(ring, (count) => count === 50_000 && killed.kill('SIGKILL')).catch((error) => error);
    const failure = `${error.code} after at least 50000 messages`;
    start(COUNT);
    await ring.readable();
    const begun = performance.now();
    const count = await consume(ring);
    const seconds = (performance.now() - begun) / 1000;
    console.log(`received ${count} messages in order`);
    console.log(
      `about ${Math.round(count / seconds / 1000) * 1000} messages per second through 1 MiB of shared memory`,
    );
    console.log(`producer killed: ${failure}`);
  } finally {
    ring.unlink();
    ring.close();
  }
}
