// Measures the latency of a JSON route while the same server sends large files.

import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { measureLoad } from './compare.ts';
import type { BenchFile } from './files.ts';
import type { Cores } from './machine.ts';
import type { Options } from './options.ts';
import { run } from './run.ts';
import type { Server } from './servers.ts';
import { quantile } from './stats.ts';

export interface JsonSample {
  variant: string;
  size: string;
  downloads: number;
  round: number;
  bytesPerSecond: number;
  cpuSecondsPerGb: number;
  coreBusy: number;
  jsonP50Ms: number;
  jsonP99Ms: number;
  jsonMaxMs: number;
  jsonRequests: number;
}

const PROBE = fileURLToPath(new URL('probe.ts', import.meta.url));

export async function jsonUnderLoad(
  servers: readonly Server[],
  file: BenchFile,
  options: Options,
  cores: Cores,
  log: (line: string) => void,
): Promise<JsonSample[]> {
  const samples: JsonSample[] = [];
  for (const downloads of options.downloads) {
    for (let round = options.warmUp ? 0 : 1; round <= options.rounds; round++) {
      for (const server of servers) {
        const seconds = round === 0 ? 1 : options.duration; // round 0 is the warm-up
        const sample = await measure(server, file, downloads, seconds, cores);
        if (round > 0) samples.push({ variant: server.variant, size: file.size, downloads, round, ...sample });
      }
      if (round > 0) log(`${downloads} downloads of ${file.size}: round ${round} of ${options.rounds}`);
    }
  }
  return samples;
}

async function measure(server: Server, file: BenchFile, downloads: number, seconds: number, cores: Cores) {
  // The load starts before the probe and ends after it.
  const load = measureLoad(server, {
    url: `${server.url}/static/${file.name}`,
    connections: downloads,
    seconds: seconds + 3,
    core: cores.load,
  });
  const probe = sleep(500).then(() =>
    run('taskset', [
      '-c',
      String(cores.probe),
      process.execPath,
      '--import',
      import.meta.resolve('tsx'),
      PROBE,
      `${server.url}/json`,
      String(seconds),
    ]),
  );
  const [moved, printed] = await settleBoth(load, probe);
  const times = JSON.parse(printed) as number[];
  return {
    bytesPerSecond: moved.load.bytes / moved.load.seconds,
    cpuSecondsPerGb: moved.cpu / (moved.load.bytes / 1e9),
    coreBusy: moved.cpu / moved.load.seconds,
    jsonP50Ms: quantile(times, 0.5),
    jsonP99Ms: quantile(times, 0.99),
    jsonMaxMs: Math.max(...times),
    jsonRequests: times.length,
  };
}

/** Like Promise.all, but waits for both when one rejects. The error of `a` takes precedence. */
async function settleBoth<A, B>(a: Promise<A>, b: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([a, b]);
  return [await a, await b];
}
