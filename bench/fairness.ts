// One endless download of 256 MiB beside 64 clients of a 1 KiB file, on one server core: how much longer do the small
// ones wait? Runs with and without the download take turns; the ratio is of each pair.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { makeFiles } from './src/files.ts';
import { runLoad } from './src/load.ts';
import { chooseCores } from './src/machine.ts';
import { startServer } from './src/servers.ts';
import { summarize } from './src/stats.ts';
import { ensureTools } from './src/tools.ts';

const ROUNDS = 7;
const SECONDS = 3;

ensureTools();
const cores = chooseCores();
const folder = makeFiles(['1k', '256m']);
process.once('exit', folder.remove);
const [small, big] = folder.files as unknown as [{ name: string }, { name: string }];

for (const variant of ['zerosend', 'fastify-static']) {
  const server = await startServer(variant, folder.root, cores.server);
  const measure = async (withDownload: boolean) => {
    const url = `${server.url}/static/${big.name}`;
    // curl and the small clients share the load's core, as they would share a network card.
    const script = `while :; do curl -s -o /dev/null ${url}; done`;
    const download = withDownload
      ? spawn('taskset', ['-c', String(cores.load), 'sh', '-c', script], { detached: true })
      : undefined;
    const { latencyMs, requests, seconds } = await runLoad({
      url: `${server.url}/static/${small.name}`,
      connections: 64,
      seconds: SECONDS,
      core: cores.load,
    });
    if (download?.pid !== undefined) {
      process.kill(-download.pid, 'SIGKILL');
      await once(download, 'close');
    }
    if (latencyMs === null) throw new Error('no small request was answered');
    return { p99: latencyMs.p99, rate: requests / seconds };
  };
  await measure(true);
  const ratios: number[] = [];
  const alone: number[] = [];
  const beside: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const [one, other] = [await measure(false), await measure(true)];
    alone.push(one.p99);
    beside.push(other.p99);
    ratios.push(other.p99 / one.p99);
  }
  const show = (values: number[]) => {
    const sum = summarize(values);
    return `${sum?.median.toFixed(2)} (${sum?.min.toFixed(2)} to ${sum?.max.toFixed(2)})`;
  };
  console.log(
    `${variant}: p99 of 64 small clients alone ${show(alone)} ms, beside the download ${show(beside)} ms; ratio ${show(ratios)}`,
  );
  await server.stop();
}
