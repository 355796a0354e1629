/** Stops servers for a while, and stops and kills clients during downloads. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Child } from '../child.js';
import type { Random } from '../random.js';
import type { Report } from '../report.js';
import type { World } from '../world.js';
import type { Endpoint } from './http.js';

/** Stops processes for less time than the limits of the clients. */
export async function stopServers(
  children: readonly Child[],
  report: Report,
  random: Random,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await sleep(random.int(500, 3000));
    const child = random.pick(children);
    child.process.kill('SIGSTOP');
    await sleep(random.int(10, 1000));
    child.process.kill('SIGCONT');
    report.count('processes', 'servers stopped for a while');
  }
}

/** Requests a large file over some connections, and reads with pauses. */
const CLIENT = `
  const { connect } = require('node:net');
  const [port, path] = process.argv.slice(1);
  for (let at = 0; at < 10; at++) {
    const socket = connect(Number(port), '127.0.0.1');
    socket.on('error', () => {});
    socket.on('data', () => { socket.pause(); setTimeout(() => socket.resume(), 5); });
    socket.write('GET ' + path + ' HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n');
  }
  console.log('asked');`;

export async function killClients(
  world: World,
  endpoints: readonly Endpoint[],
  report: Report,
  random: Random,
  signal: AbortSignal,
): Promise<void> {
  const large = world.files.find(({ size }) => size === 5_000_000);
  while (!signal.aborted) {
    await sleep(random.int(500, 3000));
    const endpoint = random.pick(endpoints.filter(({ site }) => site === 'main'));
    const args = ['-e', CLIENT, String(endpoint.port), `/${endpoint.site}/${large?.url}`];
    const client = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] });
    await Promise.race([once(client.stdout, 'data'), sleep(5000)]);
    await sleep(random.int(0, 100));
    client.kill('SIGSTOP');
    await sleep(random.int(0, 1000));
    client.kill('SIGKILL');
    report.count('processes', 'clients stopped and killed');
  }
}
