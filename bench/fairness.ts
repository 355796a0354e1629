// Latency of 64 clients of a 1 KiB file with and without two concurrent downloads of 256 MiB, one unlimited and one slow, with the
// server on one core. Runs with and without downloads form pairs, in alternating order; ratios are computed per pair.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { makeFiles } from './src/files.ts';
import { type LoadResult, runLoad } from './src/load.ts';
import { chooseCores } from './src/machine.ts';
import { type Server, startServer } from './src/servers.ts';
import { summarize } from './src/stats.ts';
import { ensureTools } from './src/tools.ts';

type Latency = NonNullable<LoadResult['latencyMs']>;

const PAIRS = 5;
const SECONDS = 5;
const SLOW_RATE = '8M';

ensureTools();
const cores = chooseCores();
const folder = makeFiles(['1k', '256m']);
process.once('exit', folder.remove);
const [small, big] = folder.files as unknown as [{ name: string }, { name: string }];

for (const variant of ['zerosend', 'fastify-static']) {
  const server = await startServer(variant, folder.root, cores.server);
  try {
    await measure(server, true); // warm-up
    const alone: Latency[] = [];
    const beside: Latency[] = [];
    for (let pair = 0; pair < PAIRS; pair++) {
      for (const downloads of pair % 2 === 0 ? [false, true] : [true, false]) {
        (downloads ? beside : alone).push(await measure(server, downloads));
      }
    }
    for (const which of ['p50', 'p99'] as const) {
      const [one, other] = [alone, beside].map((latencies) => latencies.map((latency) => latency[which]));
      const ratios = other!.map((ms, pair) => ms / one![pair]!);
      console.log(
        `${variant}: ${which} of 64 small clients without downloads ${show(one!)} ms, with downloads ${show(other!)} ms; ratio ${show(ratios)}`,
      );
    }
  } finally {
    await server.stop();
  }
}

/** The latency of the small clients. */
async function measure(server: Server, withDownloads: boolean): Promise<Latency> {
  // curl runs on the core of the load generator.
  const downloads = withDownloads ? [download(server, []), download(server, ['--limit-rate', SLOW_RATE])] : [];
  try {
    const { latencyMs } = await runLoad({
      url: `${server.url}/static/${small.name}`,
      connections: 64,
      seconds: SECONDS,
      core: cores.load,
    });
    server.check();
    if (latencyMs === null) throw new Error('no small request was completed');
    return latencyMs;
  } finally {
    for (const { stop } of downloads) await stop();
  }
}

/** Downloads the large file repeatedly until stopped. */
function download(server: Server, options: string[]): { stop: () => Promise<void> } {
  const script = 'while curl -sf -o /dev/null "$@"; do :; done';
  const url = `${server.url}/static/${big.name}`;
  const child = spawn('taskset', ['-c', String(cores.load), 'sh', '-c', script, 'sh', ...options, url], {
    detached: true,
    stdio: 'ignore',
  });
  return {
    async stop() {
      if (child.exitCode !== null || child.pid === undefined) throw new Error('a download failed');
      process.kill(-child.pid, 'SIGKILL');
      await once(child, 'close');
    },
  };
}

function show(values: number[]): string {
  const sum = summarize(values);
  return `${sum?.median.toFixed(2)} (${sum?.min.toFixed(2)} to ${sum?.max.toFixed(2)})`;
}
