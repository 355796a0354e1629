/** `zerosend cache`: shows, warms, evicts and measures files in the page cache. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { type PageCacheThroughput, type PageResidency, pageCache } from '../api/page-cache.js';
import { engine } from '../runtime/engine.js';
import { bytes, ProgressLine, shades, table } from './terminal.js';
import { parse, UsageError } from './usage.js';

const HELP = `usage: zerosend cache <command> <path>... [options]

  residency    show which pages of a file are in memory; the bar is the file from start to
               end: █ resident, ▓ ▒ ░ partly resident, · not resident
  warm         read the pages that are not resident
  evict        write dirty pages to disk and remove the file from the page cache
  measure      measure the read throughput: the first read, the second read, after evicting
               the file, and bypassing the page cache (O_DIRECT)
  status       show the memory usage of the system; takes no path

Directories are processed recursively; symbolic links in them are not followed.

      --json   print one JSON value
  -h, --help   print this help

examples:
  zerosend cache residency ./public
  zerosend cache warm /srv/www/index.html /srv/www/assets
  zerosend cache measure /srv/video.mp4`;

const WIDTH = 32;

type FileResult = Record<string, unknown> & { path: string };

const COMMANDS: Record<string, (paths: string[], json: boolean) => Promise<void>> = {
  residency: (paths, json) => each(paths, json, 'residency', (path) => pageCache.residency(path)),
  evict: (paths, json) => each(paths, json, 'evict', (path) => pageCache.evict(path)),
  warm,
  measure,
  status,
};

export async function cache(args: string[]): Promise<void> {
  const { values, positionals } = parse({
    args,
    allowPositionals: true,
    options: { json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const [command = '', ...paths] = positionals;
  const run = Object.hasOwn(COMMANDS, command) ? COMMANDS[command] : undefined;
  if (run === undefined) {
    const problem = command === '' ? 'missing command' : `unknown command '${command}'`;
    throw new UsageError(`${problem}: use one of ${Object.keys(COMMANDS).join(', ')}; see zerosend cache --help`);
  }
  if (command !== 'status' && paths.length === 0) throw new UsageError(`zerosend cache ${command} requires a path`);
  // Throws if the binding cannot be loaded: once, not for each file.
  if (command !== 'status') engine();
  await run(await walk(command === 'status' ? [] : paths), values.json === true);
}

/** The regular files among and below the paths. */
async function walk(paths: string[]): Promise<string[]> {
  const files: string[] = [];
  for (const path of paths) {
    if (!(await stat(path)).isDirectory()) {
      files.push(path);
      continue;
    }
    for (const entry of await readdir(path, { withFileTypes: true, recursive: true })) {
      if (entry.isFile()) files.push(join(entry.parentPath, entry.name));
    }
  }
  return files;
}

/** Prints one line for each file, or one JSON value. Errors are printed, and the other files are processed. */
async function each(
  paths: string[],
  json: boolean,
  command: string,
  residencyOf: (path: string) => Promise<PageResidency>,
): Promise<void> {
  const all: FileResult[] = [];
  const line = new ProgressLine();
  let [pages, resident] = [0, 0];
  for (const [at, path] of paths.entries()) {
    line.draw(at / paths.length, path);
    try {
      const found = await residencyOf(path);
      pages += found.pages;
      resident += found.resident;
      if (json) all.push({ path, ...found });
      else {
        line.clear();
        console.log(residencyLine(path, found));
      }
    } catch (error) {
      failed(line, error);
    }
  }
  line.clear();
  if (json) console.log(JSON.stringify(all, null, 2));
  else if (paths.length > 1)
    console.log(`${paths.length} files: ${percent(resident, pages)} (${resident} of ${pages} pages)`);
  else if (command === 'evict' && resident > 0)
    console.log('the remaining pages are mapped or locked by a process, or the file system is in memory');
}

function residencyLine(path: string, { size, pages, resident, runs }: PageResidency): string {
  const width = Math.min(WIDTH, Math.max(1, pages));
  const cells = new Array<number>(width).fill(0);
  let at = 0;
  for (const run of runs) {
    if (run.resident) {
      // A page that spans two cells counts in both, proportionally.
      for (let cell = Math.floor((at * width) / pages); cell < width; cell++) {
        const [from, to] = [(cell * pages) / width, ((cell + 1) * pages) / width];
        const overlap = Math.min(to, at + run.pages) - Math.max(from, at);
        if (overlap <= 0) break;
        cells[cell] = (cells[cell] as number) + overlap / (to - from);
      }
    }
    at += run.pages;
  }
  // Rounding errors of the sums must not make a full cell partial.
  const rounded = cells.map((cell) => Math.round(cell * 1e6) / 1e6);
  const drawn = pages === 0 ? '' : shades(rounded);
  return `${drawn.padEnd(WIDTH)} ${percent(resident, pages).padStart(7)} of ${bytes(size).padEnd(9)} ${path}`;
}

async function warm(paths: string[], json: boolean): Promise<void> {
  const sizes = await Promise.all(paths.map(async (path) => (await stat(path).catch(() => undefined))?.size ?? 0));
  const total = Math.max(
    1,
    sizes.reduce((sum, size) => sum + size, 0),
  );
  const line = new ProgressLine();
  const all: FileResult[] = [];
  let [done, read, pages, resident] = [0, 0, 0, 0];
  for (const [at, path] of paths.entries()) {
    try {
      const onProgress = (count: number) => line.draw((done + count) / total, path);
      onProgress(0);
      const found = await pageCache.warm(path, { onProgress });
      read += found.bytesRead;
      pages += found.pages;
      resident += found.resident;
      if (json) all.push({ path, ...found });
    } catch (error) {
      failed(line, error);
    }
    done += sizes[at] as number;
  }
  line.clear();
  if (json) console.log(JSON.stringify(all, null, 2));
  else {
    const files = paths.length === 1 ? '1 file' : `${paths.length} files`;
    console.log(`${files}, ${bytes(done)}: ${bytes(read)} read, ${percent(resident, pages)} resident`);
  }
}

async function measure(paths: string[], json: boolean): Promise<void> {
  const line = new ProgressLine();
  const all: FileResult[] = [];
  for (const path of paths) {
    try {
      const { size } = await stat(path);
      const onProgress = (count: number) => line.draw(count / Math.max(1, 4 * size), path);
      const found = await pageCache.measure(path, { onProgress });
      line.clear();
      all.push({ path, ...found });
      if (json) continue;
      const row = (name: string, read: PageCacheThroughput | undefined, reason = '') => {
        if (read === undefined) return [name, '', '', `refused: ${reason}`];
        const before = read.residentBefore / found.pages;
        return [
          name,
          `${read.megabytesPerSecond.toFixed(0)} MB/s`,
          `${read.seconds.toFixed(3)} s`,
          `${percent(before, 1)} was resident`,
        ];
      };
      const rows = [
        row('first read', found.first),
        row('second read', found.second),
        row('after evicting', found.evicted),
        row('bypassing the page cache', found.direct, found.directRefusal),
      ];
      console.log(`${path}, ${bytes(found.size)}\n${table(rows, [1, 2])}`);
    } catch (error) {
      failed(line, error);
    }
  }
  if (json) console.log(JSON.stringify(all, null, 2));
}

async function status(_: string[], json: boolean): Promise<void> {
  const found = await pageCache.status();
  if (json) console.log(JSON.stringify(found, null, 2));
  else
    console.log(
      table(
        Object.entries(found).map(([name, count]) => [name, bytes(count)]),
        [1],
      ),
    );
}

function percent(part: number, whole: number): string {
  if (whole === 0) return '—';
  // Rounded down: 100 % means all pages.
  return `${(Math.floor((part / whole) * 1000) / 10).toFixed(1)} %`;
}

function failed(line: ProgressLine, error: unknown): void {
  line.clear();
  console.error(`zerosend: ${(error as Error).message}`);
  process.exitCode = 1;
}
