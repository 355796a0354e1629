/** `zerosend bench`: the methods beside each other, on this machine. */
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

Sends a file by each method to a receiver that reads every byte, in turn, several times
over, and says how fast each was and what it cost. Without a file, makes some of random
bytes, and removes them.

      --size <size,...>      of the files it makes (default 1k,64k,1m,100m,500m)
      --methods <name,...>   of ${METHODS.slice(0, 4).join(', ')},
                             ${METHODS.slice(4).join(', ')} (default all; read-write with a buffer of
                             4 KiB is always there, to compare with)
      --cold                 also with the file taken out of the page cache before
      --socket <kind>        tcp, over the loopback, or unix (default tcp)
      --rounds <n>           how often each is measured (default 5)
      --time <ms>            of one measurement, at least (default 200)
      --json                 print all that was measured as one JSON object
      --html <file>          write a report with charts
  -h, --help

examples:
  zerosend bench
  zerosend bench /srv/video.mp4 --cold
  zerosend bench --size 64k,16m --methods sendfile,mmap --html report.html`;

/** What a report says of where it was made. */
interface Head {
  kernel: string;
  machine: string;
  cores: number;
  socket: 'tcp' | 'unix';
  rounds: number;
  least: number;
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
  if (positionals.length > 1) throw new UsageError('zerosend bench takes one file; see zerosend bench --help');
  if (positionals.length === 1 && values.size !== undefined)
    throw new UsageError('--size cannot be combined with a file argument');
  const methods = (values.methods?.split(',') ?? METHODS).map((name) => word('--methods', name, METHODS) as Method);
  const socket = word('--socket', values.socket, ['tcp', 'unix']) ?? 'tcp';
  const rounds = integer('--rounds', values.rounds, 1, 1000) ?? 5;
  const least = integer('--time', values.time, 0, 60_000) ?? 200;
  const sizes = (values.size ?? '1k,64k,1m,100m,500m').split(',').map(sizeOf);
  const variants = VARIANTS.filter(({ method }, at) => at === 0 || methods.includes(method));

  const stop = new AbortController();
  const interrupt = () => stop.abort();
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  // Before the measurement: its figures would be lost with a file that cannot be written.
  const html = values.html === undefined ? undefined : openReport(values.html);
  const made = positionals.length === 0 ? makeFiles(sizes) : undefined;
  const line = new ProgressLine();
  try {
    const result = await compareMethods({
      files: made?.files ?? positionals,
      variants,
      socket,
      cold: values.cold === true,
      rounds,
      least,
      signal: stop.signal,
      onProgress: (done, all, what) => line.draw(done / all, what),
    });
    line.clear();
    const { kernel, machine } = await probe();
    const head: Head = { kernel, machine, cores: availableParallelism(), socket, rounds, least };
    if (html !== undefined) writeFileSync(html, report(head, result));
    console.log(values.json ? JSON.stringify({ ...head, ...result }, null, 2) : text(head, result));
    if (values.html !== undefined) console.error(`the report is in ${values.html}`);
  } finally {
    line.clear();
    made?.remove();
    if (html !== undefined) closeSync(html);
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
  }
}

/** Opens the file of the report, which must be a regular one: a FIFO without a reader would keep the thread. */
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

/** Random bytes, so that nothing on the way can make less of them. */
function makeFiles(sizes: number[]): { files: string[]; remove: () => void } {
  const directory = mkdtempSync(join(tmpdir(), 'zerosend-bench-'));
  const remove = () => rmSync(directory, { recursive: true, force: true });
  try {
    const piece = Buffer.allocUnsafe(2 ** 20);
    const files = sizes.map((size) => {
      const path = join(directory, bytes(size).replaceAll(' ', ''));
      const file = openSync(path, 'w');
      for (let left = size; left > 0; ) {
        left -= writeSync(file, randomFillSync(piece), 0, Math.min(left, piece.length));
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
    const title = `${bytes(row.size)}, ${row.cold ? 'cold: from the disk' : 'hot: in the page cache'}`;
    const group = all.get(title) ?? { title, size: row.size, cold: row.cold, rows: [] };
    group.rows.push(row);
    all.set(title, group);
  }
  return [...all.values()];
}

const HEAD = [
  'method',
  'MB/s',
  'of 4 KiB',
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

function between({ min, max }: { min: number; max: number }): string {
  return `${round(min)} to ${round(max)}`;
}

function text(head: Head, result: BenchResult): string {
  const blocks = groups(result).map(({ title, rows }) => {
    const most = Math.max(...rows.map((row) => row.megabytesPerSecond.median));
    const drawn = rows.map((row) => [
      ...cells(row),
      bar(row.megabytesPerSecond.median / most, 20)
        .trimEnd()
        .padEnd(20),
      between(row.megabytesPerSecond),
    ]);
    const right = HEAD.map((_, at) => at).slice(1);
    return `${title}\n${table([[...HEAD, '', 'spread of MB/s'], ...drawn], right)}`;
  });
  const advice = sentences(head, result).map(
    ({ where, what }) => `${where}\n${what.map((one) => `- ${one}`).join('\n')}`,
  );
  return [...blocks, explanation(head), ...advice].join('\n\n');
}

function explanation({ kernel, machine, cores, socket, rounds }: Head): string {
  const wire = socket === 'tcp' ? 'TCP over the loopback' : 'Unix sockets';
  return `Linux ${kernel}, ${machine}, ${cores} cores; ${wire}; medians of ${rounds} rounds. CPU: the sender's seconds for 10^9 bytes, user and system
together; receiver: those of the other end. calls, polls: for the file once, and how often they had to wait. copies: by the
processor, of each byte, on the sender's side, where a network card gathers; on the loopback the receiver's copy is all
that is left of the card.`.replaceAll('\n', ' ');
}

/** What to use for what. */
function sentences({ socket }: Head, result: BenchResult): { where: string; what: string[] }[] {
  const wire = socket === 'tcp' ? 'TCP' : 'Unix sockets';
  return [false, true].flatMap((cold) => {
    const own = groups(result).filter((group) => group.cold === cold);
    if (own.length === 0) return [];
    // Sizes next to each other with the same answer are one stretch.
    const stretches: { from: number; to: number; labels: Set<string>; row: BenchRow; last: BenchRow }[] = [];
    for (const { size, rows } of own.toSorted((a, b) => a.size - b.size)) {
      const row = recommend(rows);
      const stretch = stretches.at(-1);
      if (stretch !== undefined && stretch.row.method === row.method) {
        Object.assign(stretch, { to: size, last: row });
        stretch.labels.add(row.label);
      } else stretches.push({ from: size, to: size, labels: new Set([row.label]), row, last: row });
    }
    const parts = stretches.map(({ from, to, labels, last }) => {
      const sizes = from === to ? bytes(from) : `${bytes(from)} to ${bytes(to)}`;
      const baseline = own.find((group) => group.size === to)?.rows[0] as BenchRow;
      const ratio = last.overBaseline.median;
      const faster = ratio < 1.05 ? 'no faster than' : `${ratio.toFixed(1)} times as fast as`;
      const cost = `${((100 * cpuOf(last)) / Math.max(cpuOf(baseline), 1e-9)).toFixed(0)} % of its processor time`;
      const name = [...labels].join(' or ');
      const verdict = `${faster} reading and writing 4 KiB at a time, with ${cost}`;
      return `for ${sizes} use ${name}: ${last.label === VARIANTS[0]?.label ? 'nothing is faster or cheaper' : verdict}`;
    });
    const where = `On this machine, over ${wire}, ${cold ? 'from the disk' : 'from the page cache'}:`;
    return [{ where, what: parts }];
  });
}

function report(head: Head, result: BenchResult): string {
  const parts = groups(result).map(({ title, rows }) => {
    const chosen = recommend(rows).label;
    const name = (row: BenchRow) => cells(row)[0] as string;
    const speed: Chart = {
      title: 'Speed',
      unit: 'MB/s, more is better; the line is from the slowest to the fastest round',
      bars: rows.map((row) => ({
        label: name(row),
        segments: [row.megabytesPerSecond.median],
        spread: [row.megabytesPerSecond.min, row.megabytesPerSecond.max] as const,
        note: `${round(row.megabytesPerSecond.median)} MB/s, ${row.overBaseline.median.toFixed(2)} ×`,
        marked: row.label === chosen,
      })),
    };
    const cost: Chart = {
      title: 'Processor time',
      unit: 'seconds for 10^9 bytes, less is better',
      legend: ['sender, system', 'sender, user', 'receiver'],
      bars: rows.map((row) => ({
        label: name(row),
        segments: [row.sender.system, row.sender.user, row.receiver.user + row.receiver.system],
        note: `${cpuOf(row).toFixed(3)} + ${(row.receiver.user + row.receiver.system).toFixed(3)} s`,
        marked: row.label === chosen,
      })),
    };
    const figures = rows.map((row) => [...cells(row), between(row.megabytesPerSecond)]);
    return `<h2>${escaped(title)}</h2>${chart(speed)}${chart(cost)}${htmlTable([...HEAD, 'spread of MB/s'], figures)}`;
  });
  const advice = sentences(head, result).map(
    ({ where, what }) =>
      `<p><strong>${escaped(where)}</strong></p><ul>${what.map((one) => `<li>${escaped(one)}</li>`).join('')}</ul>`,
  );
  const title = 'How a file reaches a socket';
  return page(
    title,
    `<h1>${title}</h1>\n${advice.join('\n')}\n<p class="soft">${escaped(explanation(head))}</p>\n${parts.join('\n')}`,
  );
}
