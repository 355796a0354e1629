/** Files that change while they are served, and their possible contents at each moment. */
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Random } from './random.js';
import { make, RECORD } from './records.js';

/** How a file changes. `release` files change together, when a symbolic link is replaced. */
export type Kind = 'steady' | 'replace' | 'rewrite' | 'resize' | 'vanish' | 'release';

/** The state at one moment. */
export interface Snapshot {
  /** The last complete version. */
  complete: number;
  /** The version that is being written; otherwise the same. */
  begun: number;
  /** How often it was removed or restored. */
  absences: number;
  absent: boolean;
  /** How often it was truncated or overwritten in place. */
  disturbances: number;
  disturbing: boolean;
}

let lastId = 0;

export class Tracked {
  readonly id = ++lastId;
  readonly kind: Kind;
  /** Its path. */
  readonly path: string;
  /** Its path below the site. */
  readonly url: string;
  /** Sizes by version. During changes in place, sizes are between those of two versions. */
  readonly sizes = new Map<number, number>();
  /** Versions with the modification time of the previous one: a weak tag does not distinguish them. */
  readonly sameTime = new Set<number>();
  complete = 0;
  begun = 0;
  absences = 0;
  absent = false;
  disturbances = 0;
  disturbing = false;

  constructor(kind: Kind, path: string, url: string) {
    this.kind = kind;
    this.path = path;
    this.url = url;
  }

  get size(): number {
    return this.sizes.get(this.complete) ?? 0;
  }

  snapshot(): Snapshot {
    const { complete, begun, absences, absent, disturbances, disturbing } = this;
    return { complete, begun, absences, absent, disturbances, disturbing };
  }

  begin(size: number): number {
    this.begun += 1;
    this.sizes.set(this.begun, size);
    this.sizes.delete(this.begun - 64);
    return this.begun;
  }

  end(): void {
    this.complete = this.begun;
  }
}

const SIZES = [
  0, 1, 15, 16, 100, 1000, 4095, 4096, 4097, 16_384, 65_535, 65_536, 65_537, 100_000, 262_144, 1_000_000, 3_000_000,
];

export function randomSize(random: Random): number {
  return random.chance(0.8) ? random.pick(SIZES) : random.int(1, 400_000);
}

/** Writes the first version. */
export function createFile(file: Tracked, size: number): Tracked {
  writeFileSync(file.path, make(file.id, file.begin(size), size));
  file.end();
  return file;
}

/** Writes the next version as the kind of the file requires. */
export async function change(file: Tracked, random: Random): Promise<void> {
  switch (file.kind) {
    case 'replace':
      return replace(file, random);
    case 'rewrite':
      return await rewrite(file, random);
    case 'resize':
      return await resize(file, random);
    case 'vanish':
      return await vanish(file, random);
    default:
  }
}

/** Replaces it with rename(2), sometimes with the same size and modification time, as tar(1) and rsync(1) do. */
function replace(file: Tracked, random: Random): void {
  const old = statSync(file.path);
  const size = random.chance(0.5) ? file.size : randomSize(random);
  const temporary = `${file.path}.new`;
  const version = file.begin(size);
  writeFileSync(temporary, make(file.id, version, size));
  if (random.chance(0.4)) {
    utimesSync(temporary, old.atimeMs / 1000, old.mtimeMs / 1000);
    file.sameTime.add(version);
  }
  renameSync(temporary, file.path);
  file.end();
}

/** Overwrites it in place with the same number of bytes, sometimes with the old modification time. */
async function rewrite(file: Tracked, random: Random): Promise<void> {
  const { atimeMs, mtimeMs } = statSync(file.path);
  const { size } = file;
  const version = file.begin(size);
  const bytes = make(file.id, version, size);
  const fd = openSync(file.path, 'r+');
  file.disturbing = true;
  file.disturbances += 1;
  try {
    const half = Math.floor(size / 2 / RECORD) * RECORD;
    writeSync(fd, bytes, 0, half, 0);
    if (random.chance(0.5)) await sleep(random.int(1, 20));
    writeSync(fd, bytes, half, size - half, half);
  } finally {
    closeSync(fd);
    file.disturbing = false;
  }
  if (random.chance(0.4)) {
    utimesSync(file.path, atimeMs / 1000, mtimeMs / 1000);
    file.sameTime.add(version);
  }
  file.end();
}

/** Truncates or extends it in place, with bytes of the same version. */
async function resize(file: Tracked, random: Random): Promise<void> {
  const old = file.size;
  const size = random.chance(0.2) ? Math.max(0, old - random.int(1, 40)) : randomSize(random);
  const version = file.begin(size);
  const bytes = make(file.id, version, size);
  const fd = openSync(file.path, 'r+');
  file.disturbing = true;
  file.disturbances += 1;
  try {
    if (size < old) ftruncateSync(fd, size);
    if (random.chance(0.3)) await sleep(random.int(1, 20));
    writeSync(fd, bytes, 0, size, 0);
  } finally {
    closeSync(fd);
    file.disturbing = false;
  }
  file.end();
}

/** Removes it for a while, then restores it, often with the same inode number, sometimes with the old size and modification time. */
async function vanish(file: Tracked, random: Random): Promise<void> {
  const { atimeMs, mtimeMs } = statSync(file.path);
  const size = random.chance(0.6) ? file.size : randomSize(random);
  const version = file.begin(size);
  file.absent = true;
  file.absences += 1;
  unlinkSync(file.path);
  if (random.chance(0.5)) await sleep(random.int(1, 200));
  // Written under another name and renamed. The inode number is the old one if the file system reuses it.
  const temporary = `${file.path}.new`;
  writeFileSync(temporary, make(file.id, version, size));
  if (random.chance(0.5)) {
    utimesSync(temporary, atimeMs / 1000, mtimeMs / 1000);
    file.sameTime.add(version);
  }
  renameSync(temporary, file.path);
  file.absent = false;
  file.end();
}

/** Directories `1`, `2`, ... with all files of a release, and the link `current` to one of them. */
export class Releases {
  readonly files: Tracked[];
  readonly #directory: string;
  #number = 0;

  constructor(directory: string, names: readonly string[]) {
    this.#directory = directory;
    this.files = names.map((name) => new Tracked('release', join(directory, 'current', name), name));
    this.next(4000);
  }

  /** The target of `current`: the root of a site. */
  get link(): string {
    return join(this.#directory, 'current');
  }

  next(size: number): void {
    this.#number += 1;
    const directory = join(this.#directory, String(this.#number));
    mkdirSync(directory);
    for (const file of this.files) {
      writeFileSync(join(directory, file.url), make(file.id, file.begin(size), size));
    }
    symlinkSync(String(this.#number), `${this.link}.new`);
    renameSync(`${this.link}.new`, this.link);
    for (const file of this.files) file.end();
    rmSync(join(this.#directory, String(this.#number - 8)), { recursive: true, force: true });
  }
}
