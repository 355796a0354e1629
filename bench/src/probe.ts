// Measures the latency of a JSON route: `probe.ts <url> <seconds>` uses one keep-alive connection and sends each request 2 ms after the
// previous response. A long stall therefore counts once, so a server that stalls looks better here than under concurrent load.
// Prints the times in milliseconds as JSON.

import { Agent, get } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const PAUSE_MS = 2;

const [url, seconds] = process.argv.slice(2);
if (url === undefined || !(Number(seconds) > 0)) throw new Error('usage: probe.ts <url> <seconds>');

const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const times: number[] = [];
await request(url); // opens the connection; not counted
const end = performance.now() + Number(seconds) * 1000;
while (performance.now() < end) {
  const started = performance.now();
  await request(url);
  times.push(performance.now() - started);
  await sleep(PAUSE_MS);
}
agent.destroy();
console.log(JSON.stringify(times));

function request(target: string): Promise<void> {
  return new Promise((resolve, reject) => {
    get(target, { agent }, (answer) => {
      if (answer.statusCode !== 200) reject(new Error(`${target}: status ${answer.statusCode}`));
      answer.resume().on('end', resolve).on('error', reject);
    }).on('error', reject);
  });
}
