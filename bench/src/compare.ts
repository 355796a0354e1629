// Measures every server once per round, for each file size. Servers keep running between measurements, so they are warm; an idle server
// does not affect the others.

import { cpuSeconds, residentBytes } from './cpu.ts';
import type { BenchFile } from './files.ts';
import { type LoadResult, runLoad } from './load.ts';
import type { Cores } from './machine.ts';
import type { Options } from './options.ts';
import type { Server } from './servers.ts';

export interface Sample {
  variant: string;
  size: string;
  fileBytes: number;
  connections: number;
  round: number;
  requestsPerSecond: number;
  bytesPerSecond: number;
  p50Ms: number | null;
  p99Ms: number | null;
  p999Ms: number | null;
  cpuSecondsPerGb: number;
  /** Null when no response was completed. */
  cpuMicrosPerRequest: number | null;
  /** Share of its core that the server used. Well below 1: the load generator was the limit, or other processes used the core. */
  coreBusy: number;
  /** Of the server and its child processes, after the load. */
  residentBytes: number;
}

export async function compare(
  servers: readonly Server[],
  files: readonly BenchFile[],
  options: Options,
  cores: Cores,
  log: (line: string) => void,
): Promise<Sample[]> {
  const samples: Sample[] = [];
  for (const file of files) {
    const connections = options.connections ?? (file.bytes >= 16 * 1024 * 1024 ? 16 : 64);
    const measure = (server: Server, seconds: number) =>
      measureLoad(server, { url: `${server.url}/static/${file.name}`, connections, seconds, core: cores.load });

    // Fills the page cache and lets the JIT compile.
    if (options.warmUp) for (const server of servers) await measure(server, 1);
    for (let round = 1; round <= options.rounds; round++) {
      for (const server of servers) {
        const { load, cpu } = await measure(server, options.duration);
        samples.push({
          variant: server.variant,
          size: file.size,
          fileBytes: file.bytes,
          connections,
          round,
          requestsPerSecond: load.requests / load.seconds,
          bytesPerSecond: load.bytes / load.seconds,
          p50Ms: load.latencyMs?.p50 ?? null,
          p99Ms: load.latencyMs?.p99 ?? null,
          p999Ms: load.latencyMs?.p999 ?? null,
          residentBytes: residentBytes(server.pid),
          cpuSecondsPerGb: cpu / (load.bytes / 1e9),
          cpuMicrosPerRequest: load.requests === 0 ? null : (cpu * 1e6) / load.requests,
          coreBusy: cpu / load.seconds,
        });
      }
      log(`${file.size}: round ${round} of ${options.rounds}`);
    }
  }
  return samples;
}

export async function measureLoad(
  server: Server,
  load: Parameters<typeof runLoad>[0],
): Promise<{ load: LoadResult; cpu: number }> {
  server.check();
  try {
    const before = cpuSeconds(server.pid);
    const result = await runLoad(load);
    return { load: result, cpu: cpuSeconds(server.pid) - before };
  } catch (error) {
    await new Promise((resolve) => setTimeout(resolve, 100)); // until the exit of the server is reported, which is the better error
    server.check();
    throw new Error(`server "${server.variant}": ${(error as Error).message}`, { cause: error });
  }
}
