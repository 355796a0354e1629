/** Compares methods: measures each once in every round, and computes medians. */
import { stat } from 'node:fs/promises';
import type { BenchCase, BenchSample } from '#native';
import { runAbortableTask } from '../runtime/abortable-task.js';
import { engine } from '../runtime/engine.js';
import type { Method } from '../types/method.js';

/** One way of sending a file. */
export interface Variant {
  method: Method;
  /** For `read-write` the bytes of the buffer, for other methods the maximum of bytes of a call. */
  chunk?: number;
  label: string;
  /** How often the sender's CPU copies each byte, with a network card that has scatter-gather and checksum offload. */
  copies: number;
}

const KIB = 1024;

/** The variants. The first is the baseline. */
export const VARIANTS: readonly Variant[] = [
  { method: 'read-write', chunk: 4 * KIB, label: 'read-write 4 KiB', copies: 2 },
  { method: 'read-write', chunk: 64 * KIB, label: 'read-write 64 KiB', copies: 2 },
  { method: 'read-write', chunk: 1024 * KIB, label: 'read-write 1 MiB', copies: 2 },
  { method: 'mmap', label: 'mmap', copies: 1 },
  { method: 'sendfile', chunk: 64 * KIB, label: 'sendfile 64 KiB', copies: 0 },
  { method: 'sendfile', label: 'sendfile', copies: 0 },
  { method: 'splice', label: 'splice', copies: 0 },
  { method: 'vmsplice', label: 'vmsplice', copies: 0 },
  { method: 'auto', label: 'auto', copies: Number.NaN },
];

/** Median, minimum and maximum of several measurements. */
export interface Spread {
  median: number;
  min: number;
  max: number;
}

/** CPU time in seconds for 10^9 bytes. */
export interface CpuTime {
  user: number;
  system: number;
}

/** The result of a variant with a file, cached or evicted. */
export interface BenchRow {
  /** Bytes of the file. */
  size: number;
  label: string;
  /** The method that was used. */
  method: Method;
  cold: boolean;
  /** In units of 10^6 bytes. */
  megabytesPerSecond: Spread;
  /** Throughput relative to the baseline in the same round. */
  overBaseline: Spread;
  sender: CpuTime;
  receiver: CpuTime;
  /** System calls to send the file once, without those that wait. */
  syscalls: number;
  /** Calls that wait for room in the socket, to send the file once. */
  polls: number;
  /** Context switches of the sender for 10^9 bytes. */
  contextSwitches: number;
  copies: number;
  /** The share of the file in the page cache before it was sent, 0 to 1. */
  resident: number;
}

export interface BenchOptions {
  /** Files, one of each size. */
  files: string[];
  variants: readonly Variant[];
  socket: 'tcp' | 'unix';
  /** Measure also with the file evicted from the page cache. */
  cold: boolean;
  rounds: number;
  /** Minimum of milliseconds of one measurement. */
  minTime: number;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, all: number, label: string) => void) | undefined;
}

export interface BenchResult {
  rows: BenchRow[];
  /** All measurements, in order. */
  samples: (BenchSample & { path: string; size: number; label: string; cold: boolean; round: number })[];
}

/** Runs the comparison. Rejects when a file cannot be opened, evicted or sent. */
export async function compareMethods(options: BenchOptions): Promise<BenchResult> {
  const { files, socket, rounds, minTime, signal, onProgress } = options;
  const sizes = new Map<string, number>();
  for (const file of files) sizes.set(file, (await stat(file)).size);
  const temperatures = options.cold ? [false, true] : [false];
  const cases = files.flatMap((path) =>
    temperatures.map((cold) => ({
      path,
      cold,
      variants: distinctVariants(options.variants, sizes.get(path) as number),
    })),
  );
  const all = cases.reduce((sum, { variants }) => sum + variants.length * rounds, 0);
  const samples: BenchResult['samples'] = [];
  for (const { path, cold, variants } of cases) {
    // Warm-up: reads the file into the page cache.
    if (!cold) await measure({ path, method: 'read-write', socket, cold, minTime: 0 }, signal);
    for (let round = 0; round < rounds; round++) {
      for (const { method, chunk, label } of round % 2 === 0 ? variants : [...variants].reverse()) {
        onProgress?.(samples.length, all, `${label}, ${path}`);
        const benchCase = { path, method, socket, cold, minTime, ...(chunk === undefined ? {} : { chunk }) };
        const sample = await measure(benchCase, signal);
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

function measure(benchCase: BenchCase, signal: AbortSignal | undefined): Promise<BenchSample> {
  return runAbortableTask({ signal }, (number) => engine().bench(number, benchCase));
}

/** Removes variants whose chunk is not smaller than the file: they are the same as those without. */
function distinctVariants(variants: readonly Variant[], size: number): Variant[] {
  return variants.filter((variant, at) => {
    if (at === 0 || variant.chunk === undefined) return true;
    const smaller = variants.find(
      (other) => other.method === variant.method && (other.chunk ?? 0) < (variant.chunk ?? 0),
    );
    return variant.method === 'read-write'
      ? smaller?.chunk === undefined || smaller.chunk < size
      : variant.chunk < size;
  });
}

function rowOf(variant: Variant, group: BenchResult['samples']): BenchRow {
  const own = group.filter(({ label }) => label === variant.label);
  const [first] = own;
  if (first === undefined) throw new Error(`no measurement of ${variant.label}`);
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

/** The best variant for files of one size: of those at most 10 % slower than the fastest, the one with the least CPU time. */
export function recommend(rows: readonly BenchRow[]): BenchRow {
  const [first, ...others] = rows.filter(({ label }) => label !== 'auto');
  if (first === undefined) throw new Error('no measurements');
  const fastest = others.reduce((best, row) => (speedOf(row) > speedOf(best) ? row : best), first);
  const equal = [first, ...others].filter((row) => speedOf(row) >= 0.9 * speedOf(fastest));
  return equal.reduce((best, row) => (cpuOf(row) < cpuOf(best) ? row : best), fastest);
}

const speedOf = ({ megabytesPerSecond }: BenchRow) => megabytesPerSecond.median;

/** The CPU time of the sender. */
export const cpuOf = ({ sender }: BenchRow): number => sender.user + sender.system;
