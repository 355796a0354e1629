// The served files: random bytes in a temporary folder.

import { createHash, randomFillSync } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface BenchFile {
  name: string;
  /** As given on the command line: `64k`. */
  size: string;
  bytes: number;
  sha256: string;
}

export interface BenchFolder {
  root: string;
  files: BenchFile[];
  remove(): void;
}

const UNITS: Record<string, number> = { k: 1024, m: 1024 * 1024 };
const CHUNK = Buffer.alloc(1024 * 1024);

/** Parses `64k` or `16m` (KiB or MiB). */
export function parseSize(size: string): number {
  const [, count, unit] = /^([1-9]\d{0,4})([km])$/.exec(size) ?? [];
  if (count === undefined || unit === undefined)
    throw new Error(`invalid --sizes '${size}': use sizes like 64k or 16m`);
  return Number(count) * (UNITS[unit] as number);
}

export function makeFiles(sizes: readonly string[]): BenchFolder {
  const wanted = sizes.map((size) => ({ size, bytes: parseSize(size), name: `${size}.bin` }));
  assertMemory(wanted.reduce((sum, { bytes }) => sum + bytes, 0));
  const root = mkdtempSync(join(tmpdir(), 'zerosend-bench-'));
  const remove = () => rmSync(root, { recursive: true, force: true });
  try {
    return {
      root,
      remove,
      files: wanted.map((file) => ({ ...file, sha256: writeRandom(join(root, file.name), file.bytes) })),
    };
  } catch (error) {
    remove();
    throw error;
  }
}

function writeRandom(path: string, bytes: number): string {
  const hash = createHash('sha256');
  const fd = openSync(path, 'wx');
  try {
    for (let left = bytes; left > 0; ) {
      const chunk = randomFillSync(CHUNK.subarray(0, Math.min(left, CHUNK.length)));
      hash.update(chunk);
      for (let at = 0; at < chunk.length; ) at += writeSync(fd, chunk, at);
      left -= chunk.length;
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}

/** Every file needs memory twice: in the page cache and in `send-buffer`. */
function assertMemory(bytes: number): void {
  const needed = bytes * 2 + 512 * 1024 * 1024;
  const available = process.availableMemory();
  if (needed > available) {
    const mib = (value: number) => Math.round(value / 1024 / 1024);
    throw new Error(
      `not enough memory: these files need ${mib(needed)} MiB, ${mib(available)} MiB are available; use smaller --sizes`,
    );
  }
}
