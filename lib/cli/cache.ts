/** `zerosend cache`: what of files is in the page cache; warm and evict them; how fast they can be read. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { type PageCachePace, type PageResidency, pageCache } from '../api/page-cache.js';
import { engine } from '../runtime/engine.js';
import { bytes, ProgressLine, shades, table } from './terminal.js';
import { parse, UsageError } from './usage.js';

const HELP = `usage: zerosend cache <what> <path>... [options]

  residency    which of its pages are in memory; the bar is the file from its beginning to
               its end: █ all there, ▓ ▒ ░ in part, · not
  warm         read what is not there, so that it is
  evict        write what is changed to the disk, and take the file out of memory
  measure      how fast it can be read: as it is found, once more, after evicting it, and
               past the page cache (O_DIRECT)
  status       how much memory is used for what; takes no path

Directories are walked; symbolic links in them are not followed.

      --json   as one JSON value
  -h, --help

examples:
  zerosend cache residency ./public
  zerosend cache warm /srv/www/index.html /srv/www/assets
  zerosend cache measure /srv/video.mp4`;

const WIDTH = 32;

type Found = Record<string, unknown> & { path: string };

const WHAT: Record<string, (paths: string[], json: boolean) => Promise<void>> = {
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
  const [what = '', ...paths] = positionals;
  const run = Object.hasOwn(WHAT, what) ? WHAT[what] : undefined;
  if (run === undefined) {
    const given = what === '' ? 'what to do is missing' : `'${what}' is not known`;
    throw new UsageError(`${given}: one of ${Object.keys(WHAT).join(', ')}; see zerosend cache --help`);
  }
  if (what !== 'status' && paths.length === 0) throw new UsageError(`zerosend cache ${what} needs a path`);
  // What cannot be done at all is said once, and not for each file.
  if (what !== 'status') engine();
  await run(await walk(what === 'status' ? [] : paths), values.json === true);
}

/** All regular files, of directories those below them. */
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

/** A line for each file, or one JSON value; what fails is said and does not keep the others. */
async function each(
  paths: string[],
  json: boolean,
  what: string,
  look: (path: string) => Promise<PageResidency>,
): Promise<void> {
  const all: Found[] = [];
  const line = new ProgressLine();
  let [pages, resident] = [0, 0];
  for (const [at, path] of paths.entries()) {
    line.draw(at / paths.length, path);
    try {
      const found = await look(path);
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
  else if (what === 'evict' && resident > 0)
    console.log('what is left is mapped or locked by somebody, or lives in memory');
}

function residencyLine(path: string, { size, pages, resident, runs }: PageResidency): string {
  const width = Math.min(WIDTH, Math.max(1, pages));
  const cells = new Array<number>(width).fill(0);
  let at = 0;
  for (const run of runs) {
    if (run.resident) {
      // Pages are spread over the cells; a page that lies in two counts in both, by its parts.
      for (let cell = Math.floor((at * width) / pages); cell < width; cell++) {
        const [from, to] = [(cell * pages) / width, ((cell + 1) * pages) / width];
        const overlap = Math.min(to, at + run.pages) - Math.max(from, at);
        if (overlap <= 0) break;
        cells[cell] = (cells[cell] as number) + overlap / (to - from);
      }
    }
    at += run.pages;
  }
  // Sums of parts are off by the last digits.
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
  const all: Found[] = [];
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
    console.log(`${files}, ${bytes(done)}: ${bytes(read)} read, ${percent(resident, pages)} in memory`);
  }
}

async function measure(paths: string[], json: boolean): Promise<void> {
  const line = new ProgressLine();
  const all: Found[] = [];
  for (const path of paths) {
    try {
      const { size } = await stat(path);
      const onProgress = (count: number) => line.draw(count / Math.max(1, 4 * size), path);
      const found = await pageCache.measure(path, { onProgress });
      line.clear();
      all.push({ path, ...found });
      if (json) continue;
      const row = (name: string, pace: PageCachePace | undefined, why = '') => {
        if (pace === undefined) return [name, '', '', `refused: ${why}`];
        const before = pace.residentBefore / found.pages;
        return [
          name,
          `${pace.megabytesPerSecond.toFixed(0)} MB/s`,
          `${pace.seconds.toFixed(3)} s`,
          `${percent(before, 1)} was in memory`,
        ];
      };
      const rows = [
        row('as it was found', found.first),
        row('once more', found.second),
        row('after evicting it', found.evicted),
        row('past the page cache', found.direct, found.directRefusal),
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
  // Never more than there is: 99.99 % is not all.
  return `${(Math.floor((part / whole) * 1000) / 10).toFixed(1)} %`;
}

function failed(line: ProgressLine, error: unknown): void {
  line.clear();
  console.error(`zerosend: ${(error as Error).message}`);
  process.exitCode = 1;
}
