/** A client that requests a small file and must not wait long, whatever other clients do. */
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Random } from '../random.js';
import { verify } from '../records.js';
import type { Report } from '../report.js';
import { zerosend } from '../under-test.js';
import type { World } from '../world.js';
import type { Endpoint } from './http.js';

/** Milliseconds for a small file on a healthy file system: more than a busy machine needs, less than the longest hang of FUSE. */
const BOUND = 4000;

export async function canary(
  world: World,
  endpoint: Endpoint,
  /** The same request to a plain Node server in a separate process, to measure the delay of the machine. */
  controlPort: number,
  report: Report,
  random: Random,
  signal: AbortSignal,
): Promise<void> {
  const files = new Map([world.canary, world.cold].map((file) => [`/${endpoint.site}/${file.url}`, file]));
  const paths = [...files.keys()];
  if (endpoint.kind !== 'server') paths.push('/-/ping');
  while (!signal.aborted) {
    await sleep(random.int(20, 100));
    if (!endpoint.child.running) continue;
    const path = random.pick(paths);
    const file = files.get(path);
    if (file === world.cold) await zerosend.pageCache.evict(file.path);
    const begun = performance.now();
    const [asked, control] = await Promise.all([timed(endpoint.port, path), timed(controlPort, '/-/ping')]);
    if (endpoint.trouble.since(begun, 100)) continue;
    report.count('canary', 'requests');
    const { body, error } = asked;
    if (error !== undefined) {
      report.fault(endpoint.kind, 'a small file was not served', `${path}: ${error} after ${asked.ms.toFixed()} ms`);
    } else if (asked.ms > BOUND + 2 * control.ms) {
      const times = `${asked.ms.toFixed()} ms, and ${control.ms.toFixed()} from a server without files`;
      report.fault(endpoint.kind, 'a small file was delayed', `${path}: ${times}`);
    } else if (file !== undefined) {
      const { bad } = verify(body, file.id);
      if (bad !== undefined || body.length !== file.size) {
        report.fault(endpoint.kind, 'wrong bytes of a small file', path);
      }
    }
  }
}

async function timed(port: number, path: string): Promise<{ body: Buffer; error?: string; ms: number }> {
  const begun = performance.now();
  try {
    const body = await get(port, path);
    return { body, ms: performance.now() - begun };
  } catch (error) {
    return { body: Buffer.alloc(0), error: (error as Error).message, ms: performance.now() - begun };
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
