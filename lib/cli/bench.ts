/** `zerosend bench`: compares the methods of sending a file on this machine. */
import { randomFillSync } from 'node:crypto';
import { closeSync, constants, fstatSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';

import { type BenchResult, type BenchRow, compareMethods, cpuOf, recommend, VARIANTS } from '../api/bench.js';
import { probe } from '../api/probe.js';
import type { Method } from '../types/method.js';
import { type Chart, chart, escaped, htmlTable, page } from './charts.js';
import { bar, bytes, ProgressLine, table } from './terminal.js';
import { integer, parse, UsageError, word } from './usage.js';

const METHODS = [...new Set(VARIANTS.map(({ method }) => method))];

const HELP = `usage: zerosend bench [file] [options]

Sends a file to a local receiver with each method, and measures throughput and CPU time.
Without a file, temporary files with random content are used.

      --size <size,...>      sizes of the temporary files (default 1k,64k,1m,100m,500m)
      --methods <name,...>   methods to measure, of ${METHODS.slice(0, 4).join(', ')},
                             ${METHODS.slice(4).join(', ')} (default all; read-write with a 4 KiB
                             buffer is always included as the baseline)
      --cold                 measure also with the file evicted from the page cache
      --socket <type>        tcp (on the loopback interface) or unix (default tcp)
      --rounds <n>           number of measurements of each method (default 5)
      --time <ms>            minimum duration of a measurement (default 200)
      --json                 print all results as one JSON object
      --html <file>          write a report with charts
  -h, --help                 print this help

examples:
  zerosend bench
  zerosend bench /srv/video.mp4 --cold
  zerosend bench --size 64k,16m --methods sendfile,mmap --html report.html`;

/** The environment of the measurement. */
interface Environment {
  kernel: string;
  machine: string;
  cores: number;
  socket: 'tcp' | 'unix';
  rounds: number;
  /** Minimum duration of a measurement in milliseconds. */
  minTime: number;
}

export async function bench(args: string[]): Promise<void> {
  const { values, positionals } = parse({
    args,
    allowPositionals: true,
    options: {
      size: { type: 'string' },
      methods: { type: 'string' },
      cold: { type: 'boolean' },
      socket: { type: 'string' },
      rounds: { type: 'string' },
      time: { type: 'string' },
      json: { type: 'boolean' },
      html: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  if (positionals.length > 1)
    throw new UsageError('too many files: zerosend bench takes one; see zerosend bench --help');
  if (positionals.length === 1 && values.size !== undefined)
    throw new UsageError('--size cannot be combined with a file argument');
  const methods = (values.methods?.split(',') ?? METHODS).map((name) => word('--methods', name, METHODS) as Method);
  const socket = word('--socket', values.socket, ['tcp', 'unix']) ?? 'tcp';
  const rounds = integer('--rounds', values.rounds, 1, 1000) ?? 5;
  const minTime = integer('--time', values.time, 0, 60_000) ?? 200;
  const sizes = (values.size ?? '1k,64k,1m,100m,500m').split(',').map(sizeOf);
  const variants = VARIANTS.filter(({ method }, at) => at === 0 || methods.includes(method));

  const stop = new AbortController();
  const interrupt = () => stop.abort();
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  // Opened before the measurement, whose results would be lost if the file were not writable.
  const html = values.html === undefined ? undefined : openReport(values.html);
  const temporary = positionals.length === 0 ? makeFiles(sizes) : undefined;
  const line = new ProgressLine();
  try {
    const result = await compareMethods({
      files: temporary?.files ?? positionals,
      variants,
      socket,
      cold: values.cold === true,
      rounds,
      minTime,
      signal: stop.signal,
      onProgress: (done, total, label) => line.draw(done / total, label),
    });
    line.clear();
    const { kernel, machine } = await probe();
    const environment: Environment = { kernel, machine, cores: availableParallelism(), socket, rounds, minTime };
    if (html !== undefined) writeFileSync(html, report(environment, result));
    console.log(values.json ? JSON.stringify({ ...environment, ...result }, null, 2) : text(environment, result));
    if (values.html !== undefined) console.error(`wrote the report to ${values.html}`);
  } finally {
    line.clear();
    temporary?.remove();
    if (html !== undefined) closeSync(html);
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
  }
}

/** Opens the file of the report. It must be a regular file: opening a FIFO would block. */
function openReport(path: string): number {
  const { O_WRONLY, O_CREAT, O_NONBLOCK, O_NOCTTY, O_TRUNC } = constants;
  const file = openSync(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY, 0o666);
  if (fstatSync(file).isFile()) return file;
  closeSync(file);
  throw new Error(`invalid --html '${path}': it exists and is not a regular file`);
}

const UNITS: Record<string, number> = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 };

function sizeOf(size: string): number {
  const [, count, unit = ''] = /^(\d{1,12})([kmg]?)$/i.exec(size.trim()) ?? [];
  const value = Number(count) * (UNITS[unit.toLowerCase()] ?? 1);
  if (value >= 1 && value <= 2 ** 36) return value;
  throw new UsageError(`invalid --size '${size}': use a number of bytes, such as 4096, 64k, 16m or 1g, up to 64g`);
}

/** Writes files with random content, which cannot be compressed or deduplicated. */
function makeFiles(sizes: number[]): { files: string[]; remove: () => void } {
  const directory = mkdtempSync(join(tmpdir(), 'zerosend-bench-'));
  const remove = () => rmSync(directory, { recursive: true, force: true });
  try {
    const chunk = Buffer.allocUnsafe(2 ** 20);
    const files = sizes.map((size) => {
      const path = join(directory, bytes(size).replaceAll(' ', ''));
      const file = openSync(path, 'w');
      for (let left = size; left > 0; ) {
        left -= writeSync(file, randomFillSync(chunk), 0, Math.min(left, chunk.length));
      }
      closeSync(file);
      return path;
    });
    return { files, remove };
  } catch (error) {
    remove();
    throw error;
  }
}

interface Group {
  title: string;
  size: number;
  cold: boolean;
  rows: BenchRow[];
}

function groups({ rows }: BenchResult): Group[] {
  const all = new Map<string, Group>();
  for (const row of rows) {
    const title = `${bytes(row.size)}, ${row.cold ? 'cold: read from disk' : 'hot: in the page cache'}`;
    const group = all.get(title) ?? { title, size: row.size, cold: row.cold, rows: [] };
    group.rows.push(row);
    all.set(title, group);
  }
  return [...all.values()];
}

const HEAD = [
  'method',
  'MB/s',
  'x baseline',
  'CPU s/GB',
  'user',
  'system',
  'receiver',
  'calls',
  'polls',
  'switches/GB',
  'copies',
];

function cells(row: BenchRow): string[] {
  return [
    row.label === row.method || row.label.startsWith(`${row.method} `) ? row.label : `${row.label}: ${row.method}`,
    round(row.megabytesPerSecond.median),
    row.overBaseline.median.toFixed(2),
    cpuOf(row).toFixed(3),
    row.sender.user.toFixed(3),
    row.sender.system.toFixed(3),
    (row.receiver.user + row.receiver.system).toFixed(3),
    round(row.syscalls),
    round(row.polls),
    round(row.contextSwitches),
    String(row.copies),
  ];
}

const round = (value: number) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));

function range({ min, max }: { min: number; max: number }): string {
  return `${round(min)} to ${round(max)}`;
}

function text(environment: Environment, result: BenchResult): string {
  const blocks = groups(result).map(({ title, rows }) => {
    const max = Math.max(...rows.map((row) => row.megabytesPerSecond.median));
    const drawn = rows.map((row) => [
      ...cells(row),
      bar(row.megabytesPerSecond.median / max, 20)
        .trimEnd()
        .padEnd(20),
      range(row.megabytesPerSecond),
    ]);
    const right = HEAD.map((_, at) => at).slice(1);
    return `${title}\n${table([[...HEAD, '', 'range of MB/s'], ...drawn], right)}`;
  });
  const advice = sentences(environment, result).map(
    ({ heading, items }) => `${heading}\n${items.map((item) => `- ${item}`).join('\n')}`,
  );
  return [...blocks, explanation(environment), ...advice].join('\n\n');
}

function explanation({ kernel, machine, cores, socket, rounds }: Environment): string {
  const wire = socket === 'tcp' ? 'TCP over the loopback' : 'Unix sockets';
  return `Linux ${kernel}, ${machine}, ${cores} cores; ${wire}; medians of ${rounds} rounds. x baseline: throughput relative to the first row.
CPU s/GB: CPU seconds of the sender for 10^9 bytes; receiver: those of the receiver. calls: system calls for one transfer of the
file; polls: how often it waited for the socket. copies: how often the CPU of the sender copies each byte, with a network card that
supports scatter-gather.`.replaceAll('\n', ' ');
}

/** The recommended method for each range of sizes. */
function sentences({ socket }: Environment, result: BenchResult): { heading: string; items: string[] }[] {
  const wire = socket === 'tcp' ? 'TCP' : 'Unix sockets';
  return [false, true].flatMap((cold) => {
    const own = groups(result).filter((group) => group.cold === cold);
    if (own.length === 0) return [];
    // Adjacent sizes with the same method are merged.
    const ranges: { from: number; to: number; labels: Set<string>; row: BenchRow; last: BenchRow }[] = [];
    for (const { size, rows } of own.toSorted((a, b) => a.size - b.size)) {
      const row = recommend(rows);
      const previous = ranges.at(-1);
      if (previous !== undefined && previous.row.method === row.method) {
        Object.assign(previous, { to: size, last: row });
        previous.labels.add(row.label);
      } else ranges.push({ from: size, to: size, labels: new Set([row.label]), row, last: row });
    }
    const items = ranges.map(({ from, to, labels, last }) => {
      const sizes = from === to ? bytes(from) : `${bytes(from)} to ${bytes(to)}`;
      const baseline = own.find((group) => group.size === to)?.rows[0] as BenchRow;
      const ratio = last.overBaseline.median;
      const speed = ratio < 1.05 ? 'as fast as' : `${ratio.toFixed(1)} times as fast as`;
      const cost = `${((100 * cpuOf(last)) / Math.max(cpuOf(baseline), 1e-9)).toFixed(0)} % of its CPU time`;
      const name = [...labels].join(' or ');
      const verdict = `${speed} read-write with a 4 KiB buffer, with ${cost}`;
      return `for ${sizes} use ${name}: ${last.label === VARIANTS[0]?.label ? 'no other method is faster or uses less CPU time' : verdict}`;
    });
    const heading = `On this machine, over ${wire}, ${cold ? 'from disk' : 'from the page cache'}:`;
    return [{ heading, items }];
  });
}

function report(environment: Environment, result: BenchResult): string {
  const parts = groups(result).map(({ title, rows }) => {
    const chosen = recommend(rows).label;
    const name = (row: BenchRow) => cells(row)[0] as string;
    const speed: Chart = {
      title: 'Throughput',
      unit: 'MB/s, higher is better; the line shows the slowest and the fastest round',
      bars: rows.map((row) => ({
        label: name(row),
        segments: [row.megabytesPerSecond.median],
        spread: [row.megabytesPerSecond.min, row.megabytesPerSecond.max] as const,
        note: `${round(row.megabytesPerSecond.median)} MB/s, ${row.overBaseline.median.toFixed(2)} ×`,
        marked: row.label === chosen,
      })),
    };
    const cost: Chart = {
      title: 'CPU time',
      unit: 'seconds for 10^9 bytes, lower is better',
      legend: ['sender, system', 'sender, user', 'receiver'],
      bars: rows.map((row) => ({
        label: name(row),
        segments: [row.sender.system, row.sender.user, row.receiver.user + row.receiver.system],
        note: `${cpuOf(row).toFixed(3)} + ${(row.receiver.user + row.receiver.system).toFixed(3)} s`,
        marked: row.label === chosen,
      })),
    };
    const figures = rows.map((row) => [...cells(row), range(row.megabytesPerSecond)]);
    return `<h2>${escaped(title)}</h2>${chart(speed)}${chart(cost)}${htmlTable([...HEAD, 'range of MB/s'], figures)}`;
  });
  const advice = sentences(environment, result).map(
    ({ heading, items }) =>
      `<p><strong>${escaped(heading)}</strong></p><ul>${items.map((item) => `<li>${escaped(item)}</li>`).join('')}</ul>`,
  );
  const title = 'Methods of sending a file to a socket';
  return page(
    title,
    `<h1>${title}</h1>\n${advice.join('\n')}\n<p class="soft">${escaped(explanation(environment))}</p>\n${parts.join('\n')}`,
  );
}
