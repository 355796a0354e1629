/** An application with a front door in a separate process. Prints its port, then reads commands from standard input. */
import { readdirSync, readlinkSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';

import Fastify from 'fastify';
import { frontDoor } from 'zerosend/fastify';

/** The target of a descriptor. The descriptor of the directory that was read is closed by then. */
function linkOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return 'gone';
  }
}

const { root, queue } = JSON.parse(process.argv[2] ?? '{}') as { root: string; queue?: number };
const app = Fastify({ serverFactory: frontDoor({ root, prefix: '/static/', queue }) });
app.get('/route', async () => 'route');
app.get('/stats', async () => app.zerosend.stats().frontDoor);
app.get('/descriptors', async () => readdirSync('/proc/self/fd').map(linkOf));
await app.listen({ port: 0, host: '127.0.0.1' });
console.log((app.server.address() as AddressInfo).port);

createInterface({ input: process.stdin }).on('line', (line) => {
  const [command, milliseconds] = line.split(' ');
  if (command === 'block') {
    const end = performance.now() + Number(milliseconds);
    console.log('blocking');
    while (performance.now() < end);
    console.log('unblocked');
  } else {
    void app.close().then(() => process.exit());
  }
});
