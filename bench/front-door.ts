// Compares the front door, all servers on one core: files with the native server and with nginx in front of Fastify; a JSON route with
// Fastify alone, with and without keep-alive; and the latency of files while JavaScript is blocked. Prints a table and writes
// results/front-door.json.

import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { makeFiles } from './src/files.ts';
import { type LoadResult, runLoad } from './src/load.ts';
import { chooseCores, describeMachine } from './src/machine.ts';
import { startServer, verifyJson, verifyServer } from './src/servers.ts';
import { summarize } from './src/stats.ts';
import { ensureTools } from './src/tools.ts';

const smoke = process.argv.includes('--smoke');
const ROUNDS = smoke ? 1 : 7;
const SECONDS = smoke ? 1 : 2;
const BLOCK_MS = smoke ? 1000 : 5000;
const OUT = fileURLToPath(new URL(`results/${smoke ? 'smoke-' : ''}front-door.json`, import.meta.url));

interface Comparison {
  name: string;
  path: string;
  variants: string[];
  close?: boolean;
}

ensureTools(['nginx']);
const cores = chooseCores();
const folder = makeFiles(['1k', '16k', '1m']);
process.once('exit', folder.remove);
process.once('SIGINT', () => process.exit(130));
const figures: Record<string, unknown>[] = [];

for (const variant of ['front-door', 'zerosend-server', 'nginx', 'fastify']) {
  const server = await startServer(variant, folder.root, cores.server);
  if (variant !== 'fastify') await verifyServer(server, folder.files);
  if (variant !== 'zerosend-server') await verifyJson(server);
  await server.stop();
}
const files = folder.files.map(({ name, size }) => ({
  name: `a file of ${size}`,
  path: `/static/${name}`,
  variants: ['front-door', 'zerosend-server', 'nginx'],
}));
const json = { name: 'JSON', path: '/json', variants: ['front-door', 'fastify', 'nginx'] };
const comparisons: Comparison[] = [...files, json, { ...json, name: 'JSON, one connection per request', close: true }];
for (const comparison of comparisons) await compare(comparison);
await blocked('separate cores', `${cores.server},${cores.load}`);
await blocked('one core for JavaScript and files', cores.server);
mkdirSync(fileURLToPath(new URL('results', import.meta.url)), { recursive: true });
writeFileSync(
  OUT,
  `${JSON.stringify({ machine: describeMachine(), cores, rounds: ROUNDS, seconds: SECONDS, figures }, null, 2)}\n`,
);

/**
 * Measures each variant once per round, in alternating order; ratios are computed per round. Each round starts new servers, because two
 * processes of the same program can differ by a quarter during their whole lifetime.
 */
async function compare({ name, path, variants, close }: Comparison): Promise<void> {
  const rates = new Map<string, number[]>(variants.map((variant) => [variant, []]));
  for (let round = 0; round < ROUNDS; round++) {
    const order = round % 2 === 0 ? variants : [...variants].reverse();
    for (const variant of order) {
      const server = await startServer(variant, folder.root, cores.server);
      try {
        const load = { url: server.url + path, connections: 64, core: cores.load, close: close === true };
        await runLoad({ ...load, seconds: 1 });
        const result = await runLoad({ ...load, seconds: SECONDS });
        server.check();
        rates.get(variant)!.push(result.requests / result.seconds);
      } finally {
        await server.stop();
      }
    }
  }
  const door = rates.get('front-door')!;
  for (const variant of variants) {
    const own = rates.get(variant)!;
    const ratio = summarize(door.map((rate, round) => rate / own[round]!));
    figures.push({ name, variant, requestsPerSecond: summarize(own), frontDoorOver: ratio });
    if (variant === 'front-door') continue;
    console.log(`${name}: front door relative to ${variant} ${show(ratio)}`);
  }
}

/** Latency of a small file before and while JavaScript is blocked. */
async function blocked(name: string, core: number | string): Promise<void> {
  const server = await startServer('front-door', folder.root, core);
  try {
    const load = { url: `${server.url}/static/${folder.files[0]!.name}`, connections: 8, core: cores.load };
    await runLoad({ ...load, seconds: 1 });
    const free = await runLoad({ ...load, seconds: 2 });
    const block = fetch(`${server.url}/block/${BLOCK_MS}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
    const busy = await runLoad({ ...load, seconds: Math.floor(BLOCK_MS / 1000) - (smoke ? 0 : 1) });
    const route = fetch(`${server.url}/json`).then((answer) => answer.status);
    await block;
    if ((await route) !== 200) throw new Error('the request during the block failed');
    figures.push({ name: `JavaScript blocked, ${name}`, free: free.latencyMs, blocked: busy.latencyMs });
    console.log(`JavaScript blocked, ${name}: before ${latency(free)}, during ${latency(busy)}`);
  } finally {
    await server.stop();
  }
}

function latency({ latencyMs, requests, seconds }: LoadResult): string {
  return `p50 ${latencyMs?.p50.toFixed(2)} p99 ${latencyMs?.p99.toFixed(2)} ms at ${Math.round(requests / seconds)}/s`;
}

function show(summary: { median: number; min: number; max: number } | null): string {
  return summary === null
    ? '-'
    : `${summary.median.toFixed(2)} (${summary.min.toFixed(2)} to ${summary.max.toFixed(2)})`;
}
