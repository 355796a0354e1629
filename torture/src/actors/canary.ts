/** Someone who asks for little and must not wait long, whatever others do. */
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Random } from '../random.js';
import { verify } from '../records.js';
import type { Report } from '../report.js';
import type { World } from '../world.js';
import type { Endpoint } from './http.js';

/** Milliseconds for a small file on a healthy file system. Far above what a busy machine needs, and below the longest hang of FUSE. */
const BOUND = 4000;

export async function canary(
  world: World,
  endpoint: Endpoint,
  report: Report,
  random: Random,
  signal: AbortSignal,
): Promise<void> {
  const paths = [`/${endpoint.site}/${world.canary.url}`];
  if (endpoint.kind !== 'server') paths.push('/-/ping');
  while (!signal.aborted) {
    await sleep(random.int(20, 100));
    if (!endpoint.child.running) continue;
    const path = random.pick(paths);
    const lag = new Lag();
    const begun = performance.now();
    let error: string | undefined;
    let body: Buffer = Buffer.alloc(0);
    try {
      body = await get(endpoint.port, path);
    } catch (failure) {
      error = (failure as Error).message;
    }
    const took = performance.now() - begun;
    const own = lag.stop();
    if (endpoint.trouble.since(begun, 100)) continue;
    report.count('canary', 'requests');
    if (error !== undefined)
      report.fault(endpoint.kind, 'a small file was not served', `${path}: ${error} after ${took.toFixed()} ms`);
    else if (took - own > BOUND) {
      report.fault(
        endpoint.kind,
        'a small file had to wait',
        `${path}: ${took.toFixed()} ms, of which this program ${own.toFixed()}`,
      );
    } else if (path !== '/-/ping') {
      const { bad } = verify(body, world.canary.id);
      if (bad !== undefined || body.length !== world.canary.size)
        report.fault(endpoint.kind, 'wrong bytes of a small file', path);
    }
  }
}

/** How much of a span this program itself was late. */
class Lag {
  #late = 0;
  #last = performance.now();
  readonly #timer = setInterval(() => {
    const now = performance.now();
    this.#late += Math.max(0, now - this.#last - 20);
    this.#last = now;
  }, 20);

  stop(): number {
    clearInterval(this.#timer);
    return this.#late + Math.max(0, performance.now() - this.#last - 20);
  }
}

function get(port: number, path: string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const asked = request({ port, path, host: '127.0.0.1', agent: false, timeout: 60_000 }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        if (response.statusCode === 200) resolve(Buffer.concat(chunks));
        else reject(new Error(`status ${response.statusCode}`));
      });
    });
    asked.on('timeout', () => asked.destroy(new Error('no answer in a minute')));
    asked.on('error', reject);
    asked.end();
  });
}
