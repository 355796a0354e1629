/** `zerosend bench`: figures, command-line options, and the HTML report. */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import test from 'ava';

import { browse, open } from './support/browser.js';
import { patternFile, scratch } from './support/files.js';
import { testWith } from './support/tools.js';

const MAIN = new URL('../dist/lib/cli/main.js', import.meta.url).pathname;
const run = promisify(execFile);
const bench = (...args: string[]) => run(process.execPath, [MAIN, 'bench', ...args]);

interface Report {
  rows: {
    label: string;
    method: string;
    cold: boolean;
    syscalls: number;
    copies: number;
    resident: number;
    size: number;
  }[];
  samples: {
    label: string;
    method: string;
    bytes: number;
    times: number;
    syscalls: number;
    polls: number;
    seconds: number;
    sender: { user: number; system: number };
    receiver: { user: number; system: number };
  }[];
}

test.serial('JSON output has every method with its cost', async (t) => {
  const path = patternFile(scratch(t), 'file', 3_000_000);
  const { stdout } = await bench(path, '--rounds', '2', '--time', '10', '--json');
  const { rows, samples } = JSON.parse(stdout) as Report;
  t.deepEqual([...new Set(rows.map(({ method }) => method))].sort(), [
    'mmap',
    'read-write',
    'sendfile',
    'splice',
    'vmsplice',
  ]);
  t.is(samples.length, 2 * rows.length);
  for (const { label, bytes, times, syscalls, seconds, sender, receiver } of samples) {
    t.is(bytes, times * 3_000_000, label);
    t.true(syscalls >= times && seconds >= 0.01, label);
    // Upper bounds for one thread each.
    t.true(
      sender.user + sender.system <= seconds * 1.5 + 0.02 && receiver.user + receiver.system < seconds * 1.5 + 0.1,
      label,
    );
  }
  const [baseline] = rows;
  t.like(baseline, { label: 'read-write 4 KiB', method: 'read-write', copies: 2, resident: 1, size: 3_000_000 });
  t.true((baseline?.syscalls ?? 0) >= 2 * Math.ceil(3_000_000 / 4096));
});

testWith('strace')('the counts of system calls agree with strace', (t) => {
  const directory = scratch(t);
  const path = patternFile(directory, 'file', 8_000_000);
  const log = join(directory, 'trace');
  const node = [
    process.execPath,
    MAIN,
    'bench',
    path,
    '--methods',
    'sendfile,splice',
    '--rounds',
    '1',
    '--time',
    '0',
    '--json',
  ];
  const { stdout } = spawnSync('strace', ['-f', '-qq', '-o', log, '-e', 'trace=sendfile,splice,poll,ppoll', ...node]);
  const { samples } = JSON.parse(stdout.toString()) as Report;
  const trace = readFileSync(log, 'latin1').split('\n');
  const counted = (call: string) => trace.filter((line) => line.includes(` ${call}(`)).length;
  for (const method of ['sendfile', 'splice']) {
    const own = samples.filter((one) => one.method === method);
    const reported = own.reduce((sum, one) => sum + one.syscalls, 0);
    // After each wait the size of the file is checked with another system call, which is counted.
    const waits = own.reduce((sum, one) => sum + one.polls, 0);
    const seen = counted(method);
    t.true(
      reported > 0 && seen <= reported + 3 && seen >= reported - waits,
      `${method}: ${seen} seen, ${reported} reported, ${waits} waits`,
    );
  }
  const polls = samples.reduce((sum, one) => sum + one.polls, 0);
  const waited = counted('poll') + counted('ppoll');
  t.true(waited >= polls && waited <= polls + 10, `${waited}, ${polls}`);
});

test.serial(
  'text output has a table and a recommendation, temporary files are removed, and invalid arguments are refused',
  async (t) => {
    const left = () => readdirSync(tmpdir()).filter((name) => name.startsWith('zerosend-bench-'));
    const before = left();
    const { stdout } = await bench(
      '--size',
      '1k,100k',
      '--methods',
      'sendfile',
      '--rounds',
      '1',
      '--time',
      '1',
      '--socket',
      'unix',
    );
    t.deepEqual(left(), before);
    t.regex(stdout, /^1 KiB, hot: in the page cache\nmethod +MB\/s/);
    t.regex(stdout, /\nread-write 4 KiB .*█/);
    t.regex(stdout, /On this machine, over Unix sockets, from the page cache:\n- for 1 KiB/);
    for (const [args, code, message] of [
      [['--methods', 'wat'], 2, /invalid --methods 'wat'/],
      [['--size', '0'], 2, /invalid --size '0'/],
      [['--size', '1t'], 2, /invalid --size '1t'/],
      [['--rounds', '0'], 2, /invalid --rounds '0'/],
      [['a', 'b'], 2, /too many files/],
      [['a', '--size', '1k'], 2, /--size cannot be combined with a file argument/],
      [['/no/such/file'], 1, /ENOENT/],
      [['/dev/shm', '--rounds', '1'], 1, /directory/i],
    ] as const) {
      const failed = await t.throwsAsync(bench(...args));
      t.is((failed as unknown as { code: number }).code, code, args.join(' '));
      t.regex((failed as unknown as { stderr: string }).stderr, message);
    }
    // A file in memory cannot be evicted.
    const memory = mkdtempSync('/dev/shm/zerosend-test-');
    t.teardown(() => spawnSync('rm', ['-r', memory]));
    writeFileSync(join(memory, 'file'), Buffer.alloc(1_000_000));
    const failed = await t.throwsAsync(bench(join(memory, 'file'), '--cold', '--rounds', '1', '--time', '1'));
    t.regex((failed as unknown as { stderr: string }).stderr, /cannot be evicted/);
  },
);

browse('the report is readable in light and dark mode, on a phone and on paper', async (t) => {
  const path = join(scratch(t), 'report.html');
  await bench('--size', '1k,1m', '--rounds', '2', '--time', '5', '--html', path);
  t.notRegex(readFileSync(path, 'utf8'), /(?:src|href)=|https?:/, 'the report loads no other resources');
  const browser = await open(t);
  const papers = new Set<string>();
  for (const [width, colorScheme] of [
    [1100, 'light'],
    [1100, 'dark'],
    [360, 'light'],
  ] as const) {
    const page = await browser.newPage({ viewport: { width, height: 800 }, colorScheme });
    const errors: Error[] = [];
    page.on('pageerror', (error) => errors.push(error));
    await page.goto(`file://${path}`);
    t.is(await page.evaluate('document.documentElement.scrollWidth'), width, 'the page is as wide as the screen');
    papers.add(`${await page.evaluate('getComputedStyle(document.body).backgroundColor')} ${colorScheme}`);
    t.is(await page.evaluate('document.querySelectorAll("figure").length'), 4);
    const widths = (await page.evaluate(
      '[...document.querySelectorAll("figure rect")].map((bar) => bar.getBoundingClientRect().width)',
    )) as number[];
    t.true(widths.length > 20 && Math.max(...widths) > 100 && Math.max(...widths) < width);
    // Notes beside the bars are readable and do not overlap.
    const sizes = (await page.evaluate(
      '[...document.querySelectorAll(".note")].map((note) => parseFloat(getComputedStyle(note).fontSize))',
    )) as number[];
    t.true(Math.min(...sizes) >= 12);
    t.deepEqual(errors, []);
    await page.close();
  }
  t.is(papers.size, 2);
  const page = await browser.newPage();
  await page.goto(`file://${path}`);
  t.true((await page.pdf({ format: 'A4' })).length > 10_000);
});
