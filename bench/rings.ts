// Compares message channels between two processes on separate cores: SharedRing, Unix socket, pipe and worker.postMessage. Prints a table
// and writes results/rings.json.

import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { chooseCores, describeMachine } from './src/machine.ts';
import { run } from './src/run.ts';
import { summarize } from './src/stats.ts';

const smoke = process.argv.includes('--smoke');
const ROUNDS = smoke ? 1 : 7;
const SIZES = smoke ? [64, 65_536] : [64, 1024, 16_384, 65_536];
/** Limits per run. */
const MAX_MESSAGES = smoke ? 100_000 : 1_000_000;
const MAX_BYTES = smoke ? 2 ** 26 : 2 ** 30;
const VARIANTS = ['ring', 'ring, reuse', 'unix socket', 'unix socket, batched', 'pipe', 'pipe, batched', 'postMessage'];
const ENDS = fileURLToPath(new URL('ring-ends.ts', import.meta.url));

const cores = chooseCores();
const figures: Record<string, unknown>[] = [];
for (const size of SIZES) {
  const count = Math.min(MAX_MESSAGES, Math.floor(MAX_BYTES / size));
  const rates = new Map<string, number[]>(VARIANTS.map((variant) => [variant, []]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const variant of round % 2 === 0 ? VARIANTS : [...VARIANTS].reverse()) {
      const node = [process.execPath, '--import', import.meta.resolve('tsx'), ENDS, 'send', variant];
      // The worker is a thread of the sender's process, which therefore may use both cores.
      const on = variant === 'postMessage' ? `${cores.server},${cores.load}` : String(cores.server);
      const output = await run('taskset', ['-c', on, ...node, String(size), String(count), String(cores.load)]);
      rates.get(variant)!.push(count / (JSON.parse(output) as { seconds: number }).seconds);
    }
  }
  const own = rates.get('ring')!;
  const best = own.map((_, round) => Math.max(...VARIANTS.slice(2).map((variant) => rates.get(variant)![round]!)));
  const overBest = summarize(own.map((rate, round) => rate / best[round]!))!;
  console.log(`\n${size} bytes: messages/s, MB/s, ring relative to it (spread)`);
  for (const variant of VARIANTS) {
    const rate = summarize(rates.get(variant)!)!;
    const ratio = summarize(rates.get(variant)!.map((one, round) => own[round]! / one))!;
    figures.push({ size, count, variant, rate, ratio });
    const spread = `${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)} to ${ratio.max.toFixed(2)})`;
    const perSecond = Math.round(rate.median).toLocaleString('en').padStart(11);
    console.log(
      `  ${variant.padEnd(22)} ${perSecond} ${((rate.median * size) / 1e6).toFixed(0).padStart(6)}  ${spread}`,
    );
  }
  const reused = summarize(rates.get('ring, reuse')!.map((rate, round) => rate / best[round]!))!;
  figures.push({ size, count, variant: 'best of the others', ratio: overBest, ratioOfReuse: reused });
  for (const [name, { median, min, max }] of [
    ['ring', overBest],
    ['ring, reuse', reused],
  ] as const) {
    console.log(
      `  ${name} relative to the best of the others: ${median.toFixed(2)} (${min.toFixed(2)} to ${max.toFixed(2)})`,
    );
  }
}
const results = new URL(`results/${smoke ? 'smoke-' : ''}rings.json`, import.meta.url);
mkdirSync(new URL('results', import.meta.url), { recursive: true });
writeFileSync(results, `${JSON.stringify({ machine: describeMachine(), cores, rounds: ROUNDS, figures }, null, 2)}\n`);
