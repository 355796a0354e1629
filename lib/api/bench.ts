/** The comparison of methods: rounds in which each is measured once, and what comes of them. */
import { stat } from 'node:fs/promises';
import type { BenchSample } from '#native';
import { ask, engine } from '../runtime/engine.js';
import type { Method } from '../types/method.js';
import { aborted } from '../util/errors.js';

/** One way of sending a file. */
export interface Variant {
  method: Method;
  /** Bytes of the buffer of `read-write`; of the others, bytes after which a call ends. */
  piece?: number;
  label: string;
  /** How often the processor copies each byte on the sender's side, in theory: with a network card that gathers and checks. */
  copies: number;
}

const KIB = 1024;

/** What is compared; the first is what the others are measured against. */
export const VARIANTS: readonly Variant[] = [
  { method: 'read-write', piece: 4 * KIB, label: 'read-write 4 KiB', copies: 2 },
  { method: 'read-write', piece: 64 * KIB, label: 'read-write 64 KiB', copies: 2 },
  { method: 'read-write', piece: 1024 * KIB, label: 'read-write 1 MiB', copies: 2 },
  { method: 'mmap', label: 'mmap', copies: 1 },
  { method: 'sendfile', piece: 64 * KIB, label: 'sendfile 64 KiB', copies: 0 },
  { method: 'sendfile', label: 'sendfile', copies: 0 },
  { method: 'splice', label: 'splice', copies: 0 },
  { method: 'vmsplice', label: 'vmsplice', copies: 0 },
  { method: 'auto', label: 'auto', copies: Number.NaN },
];

/** The middle of what was measured, the least and the most. */
export interface Spread {
  median: number;
  min: number;
  max: number;
}

/** A processor's time: seconds for 10^9 bytes. */
export interface CpuTime {
  user: number;
  system: number;
}

/** One variant with one file, hot or cold. */
export interface BenchRow {
  /** Bytes of the file. */
  size: number;
  label: string;
  /** What was really used. */
  method: Method;
  cold: boolean;
  /** In units of 10^6 bytes. */
  megabytesPerSecond: Spread;
  /** Of it, over the baseline's of the same round. */
  overBaseline: Spread;
  sender: CpuTime;
  receiver: CpuTime;
  /** System calls for the file once, without those that waited. */
  syscalls: number;
  /** Calls that waited for room in the socket, for the file once. */
  polls: number;
  /** Context switches of the sender for 10^9 bytes. */
  contextSwitches: number;
  copies: number;
  /** The share of the file that was in the page cache before it was sent. */
  resident: number;
}

export interface BenchOptions {
  /** Files, one of each size. */
  files: string[];
  variants: readonly Variant[];
  socket: 'tcp' | 'unix';
  /** Also with the file taken out of the page cache before. */
  cold: boolean;
  rounds: number;
  /** Milliseconds of one measurement, at least. */
  least: number;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, all: number, what: string) => void) | undefined;
}

export interface BenchResult {
  rows: BenchRow[];
  /** Everything that was measured, in its order. */
  samples: (BenchSample & { path: string; size: number; label: string; cold: boolean; round: number })[];
}

/** Measures. Rejects as the engine does: with what cannot be opened, evicted or sent. */
export async function compareMethods(options: BenchOptions): Promise<BenchResult> {
  const { files, socket, rounds, least, signal, onProgress } = options;
  const sizes = new Map<string, number>();
  for (const file of files) sizes.set(file, (await stat(file)).size);
  const temperatures = options.cold ? [false, true] : [false];
  const cases = files.flatMap((path) =>
    temperatures.map((cold) => ({ path, cold, variants: worthwhile(options.variants, sizes.get(path) as number) })),
  );
  const all = cases.reduce((sum, { variants }) => sum + variants.length * rounds, 0);
  const samples: BenchResult['samples'] = [];
  for (const { path, cold, variants } of cases) {
    // Compiled, cached, connected.
    if (!cold) await measure({ path, method: 'read-write', socket, cold, least: 0 }, signal);
    for (let round = 0; round < rounds; round++) {
      for (const { method, piece, label } of round % 2 === 0 ? variants : [...variants].reverse()) {
        onProgress?.(samples.length, all, `${label}, ${path}`);
        const asked = { path, method, socket, cold, least, ...(piece === undefined ? {} : { piece }) };
        const sample = await measure(asked, signal);
        samples.push({ ...sample, path, size: sizes.get(path) as number, label, cold, round });
      }
    }
  }
  const rows = cases.flatMap(({ path, cold, variants }) => {
    const own = samples.filter((sample) => sample.path === path && sample.cold === cold);
    return variants.map((variant) => rowOf(variant, own));
  });
  return { rows, samples };
}

async function measure(
  what: Parameters<ReturnType<typeof engine>['bench']>[1],
  signal: AbortSignal | undefined,
): Promise<BenchSample> {
  if (signal?.aborted) throw aborted(signal);
  let token = 0;
  const stop = () => engine().release(token);
  signal?.addEventListener('abort', stop, { once: true });
  try {
    const measured = await ask((number) => {
      token = engine().bench(number, what);
    });
    return (measured as unknown as { sample: BenchSample }).sample;
  } catch (error) {
    throw signal?.aborted ? aborted(signal) : error;
  } finally {
    signal?.removeEventListener('abort', stop);
    stop();
  }
}

/** Pieces that are no smaller than the file are the same as none. */
function worthwhile(variants: readonly Variant[], size: number): Variant[] {
  return variants.filter((variant, at) => {
    if (at === 0 || variant.piece === undefined) return true;
    const smaller = variants.find(
      (other) => other.method === variant.method && (other.piece ?? 0) < (variant.piece ?? 0),
    );
    return variant.method === 'read-write'
      ? smaller?.piece === undefined || smaller.piece < size
      : variant.piece < size;
  });
}

function rowOf(variant: Variant, group: BenchResult['samples']): BenchRow {
  const own = group.filter(({ label }) => label === variant.label);
  const [first] = own;
  if (first === undefined) throw new Error(`nothing was measured of ${variant.label}`);
  const speed = ({ bytes, seconds }: BenchSample) => bytes / 1e6 / seconds;
  const baseline = group.filter(({ label }) => label === group[0]?.label);
  const perGb = (of: (sample: BenchSample) => number) => median(own.map((sample) => of(sample) / (sample.bytes / 1e9)));
  return {
    size: first.size,
    label: variant.label,
    method: first.method,
    cold: first.cold,
    megabytesPerSecond: spread(own.map(speed)),
    overBaseline: spread(
      own.map((sample) => {
        const same = baseline.find(({ round }) => round === sample.round) as BenchSample;
        return speed(sample) / speed(same);
      }),
    ),
    sender: { user: perGb(({ sender }) => sender.user), system: perGb(({ sender }) => sender.system) },
    receiver: { user: perGb(({ receiver }) => receiver.user), system: perGb(({ receiver }) => receiver.system) },
    syscalls: median(own.map(({ syscalls, times }) => syscalls / times)),
    polls: median(own.map(({ polls, times }) => polls / times)),
    contextSwitches: perGb(({ sender }) => sender.waits + sender.preemptions),
    copies: VARIANTS.find(({ method }) => method === first.method)?.copies ?? variant.copies,
    resident: median(own.map(({ resident, pages }) => resident / pages)),
  };
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const [low = Number.NaN, high = low] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return (low + high) / 2;
}

function spread(values: number[]): Spread {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/** What to use for files of one size: what is no more than a tenth slower than the fastest, and the cheapest of these. */
export function recommend(rows: readonly BenchRow[]): BenchRow {
  const [first, ...others] = rows.filter(({ label }) => label !== 'auto');
  if (first === undefined) throw new Error('nothing was measured');
  const fastest = others.reduce((best, row) => (speedOf(row) > speedOf(best) ? row : best), first);
  const equal = [first, ...others].filter((row) => speedOf(row) >= 0.9 * speedOf(fastest));
  return equal.reduce((best, row) => (cpuOf(row) < cpuOf(best) ? row : best), fastest);
}

const speedOf = ({ megabytesPerSecond }: BenchRow) => megabytesPerSecond.median;

/** The sender's processor time. */
export const cpuOf = ({ sender }: BenchRow): number => sender.user + sender.system;
