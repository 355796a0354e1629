// Compares relays: bulk transfers over 1 and 16 connections, 1 KiB round trips over 64 connections, and the memory of 9,500 idle
// connections. Prints a table and writes results/relays.json. The relay runs on one core, backend and clients on another.

import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chooseCores, describeMachine } from './src/machine.ts';
import { RELAYS, type Relay, startRelay } from './src/relays.ts';
import { run } from './src/run.ts';
import { summarize } from './src/stats.ts';
import { ensureTools } from './src/tools.ts';

const { values: flags } = parseArgs({
  options: {
    smoke: { type: 'boolean', default: false },
    /** Keys of `RELAYS`, or `direct`, separated by commas. */
    variants: { type: 'string' },
    /** Any of bulk, messages, idle, separated by commas. */
    parts: { type: 'string', default: 'bulk,messages,idle' },
    rounds: { type: 'string', default: '7' },
    /** Mebibytes of a bulk measurement. */
    mebibytes: { type: 'string', default: '1024' },
    out: { type: 'string' },
  },
});
const { smoke } = flags;
const parts = flags.parts.split(',');
const ROUNDS = smoke ? 1 : Number(flags.rounds);
const BYTES = smoke ? 2 ** 26 : Number(flags.mebibytes) * 2 ** 20;
const SECONDS = smoke ? 1 : 3;
const BASE = 'zerosend';
const all = ['direct', ...Object.keys(RELAYS)];
const variants =
  flags.variants === undefined ? all : [BASE, ...flags.variants.split(',').filter((one) => one !== BASE)];
for (const variant of variants)
  if (!all.includes(variant)) throw new Error(`unknown variant '${variant}': use ${all.join(', ')}`);
const whole = !smoke && flags.variants === undefined && parts.length === 3;
// Partial runs do not overwrite the results of complete ones.
const OUT = flags.out ?? fileURLToPath(new URL(`results/${whole ? '' : 'part-of-'}relays.json`, import.meta.url));
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const LOAD = `${ROOT}target/release/examples/relay_load`;

interface Sample {
  /** Bytes or round trips per second. */
  rate: number;
  /** CPU seconds of the relay per GB (10^9 bytes), or per 100,000 round trips. */
  cpu: number;
  p99?: number;
}

ensureTools(['nginx', 'haproxy', 'socat', 'libnginx-mod-stream']);
spawnSync('cargo', ['build', '-q', '--release', '-p', 'zerosend-core', '--example', 'relay_load'], {
  cwd: ROOT,
  stdio: 'inherit',
});
const cores = chooseCores();
const backend = spawn('taskset', ['-c', String(cores.load), LOAD, 'backend'], { stdio: ['pipe', 'pipe', 'inherit'] });
const target = await new Promise<number>((resolve) => {
  backend.stdout.once('data', (text) => resolve(Number(/(\d+)/.exec(String(text))?.[1])));
});
const figures: Record<string, unknown>[] = [];

const load = async (relay: Relay | undefined, ...args: (string | number)[]): Promise<Record<string, number>> => {
  const [mode, ...rest] = args.map(String) as [string, ...string[]];
  const port = String(relay?.port ?? target);
  return JSON.parse(await run('taskset', ['-c', String(cores.load), LOAD, mode, port, ...rest]));
};
for (const connections of parts.includes('bulk') ? [1, 16] : []) {
  await compare(`bulk, ${connections} connection${connections === 1 ? '' : 's'}`, 'MB/s', async (relay) => {
    await load(relay, 'bulk', connections, BYTES / 8 / connections);
    const before = relay?.cpu() ?? 0;
    const { bytes, seconds } = await load(relay, 'bulk', connections, BYTES / connections);
    return { rate: bytes! / 1e6 / seconds!, cpu: ((relay?.cpu() ?? 0) - before) / (bytes! / 1e9) };
  });
}
if (parts.includes('messages')) {
  await compare('64 connections, 1 KiB round trips', 'round trips/s', async (relay) => {
    await load(relay, 'exchange', 64, 1);
    const before = relay?.cpu() ?? 0;
    const { exchanges, seconds, p99 } = await load(relay, 'exchange', 64, SECONDS);
    return { rate: exchanges! / seconds!, cpu: ((relay?.cpu() ?? 0) - before) / (exchanges! / 1e5), p99: p99! };
  });
}
if (parts.includes('idle')) await idle(smoke ? 500 : 9500);
backend.stdin.end();
mkdirSync(fileURLToPath(new URL('results', import.meta.url)), { recursive: true });
const head = { machine: describeMachine(), cores, rounds: ROUNDS, bytes: BYTES, seconds: SECONDS };
writeFileSync(OUT, `${JSON.stringify({ ...head, figures }, null, 2)}\n`);

/** Measures each variant once per round, in a new process and in alternating order. Ratios are computed per round. */
async function compare(
  name: string,
  unit: string,
  measure: (relay: Relay | undefined) => Promise<Sample>,
): Promise<void> {
  const samples = new Map<string, Sample[]>(variants.map((variant) => [variant, []]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const variant of round % 2 === 0 ? variants : [...variants].reverse()) {
      const relay = variant === 'direct' ? undefined : await startRelay(variant, target, cores.server);
      try {
        samples.get(variant)!.push(await measure(relay));
      } catch (error) {
        throw new Error(`${variant}: ${name} failed`, { cause: error });
      } finally {
        await relay?.stop();
      }
    }
  }
  console.log(
    `\n${name}: ${unit}, ${BASE} relative to it (spread), CPU ${unit === 'MB/s' ? 's/GB' : 's/100,000'}, p99 ms`,
  );
  const base = samples.get(BASE)!;
  for (const variant of variants) {
    const own = samples.get(variant)!;
    const rate = summarize(own.map((sample) => sample.rate));
    const ratio = summarize(own.map((sample, round) => base[round]!.rate / sample.rate));
    const cpu = summarize(own.map((sample) => sample.cpu));
    const p99 = summarize(own.flatMap((sample) => sample.p99 ?? []));
    figures.push({ name, variant, unit, rate, ratio, cpu, p99 });
    const spread = ratio && `${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)} to ${ratio.max.toFixed(2)})`;
    const cells = [Math.round(rate?.median ?? 0), spread, cpu?.median.toFixed(3), p99?.median.toFixed(2) ?? ''];
    console.log(`  ${variant.padEnd(24)} ${cells.join('  ')}`);
  }
}

/** Resident bytes per idle connection that has relayed a message. */
async function idle(connections: number): Promise<void> {
  console.log(`\n${connections} idle connections: resident bytes of the relay per connection`);
  for (const variant of variants) {
    // `direct` has no relay; socat starts a process per connection.
    if (variant === 'direct' || variant === 'socat') continue;
    const relay = await startRelay(variant, target, cores.server);
    try {
      await load(relay, 'exchange', 8, 1);
      const before = relay.memory();
      const child = spawn(LOAD, ['idle', String(relay.port), String(connections)], {
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      await new Promise((resolve, reject) => {
        child.stdout.once('data', resolve);
        child.once('close', () => reject(new Error(`${variant}: could not open all connections`)));
      });
      const bytes = Math.round((relay.memory() - before) / connections);
      figures.push({ name: `${connections} idle connections`, variant, bytesPerConnection: bytes });
      console.log(`  ${variant.padEnd(24)} ${bytes}`);
      child.removeAllListeners('close');
      child.stdin.end();
      await new Promise((resolve) => child.once('close', resolve));
    } finally {
      await relay.stop();
    }
  }
}
