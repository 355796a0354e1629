/** `memoryMaps`: what a process has mapped, from `/proc/[pid]/smaps` and `/proc/[pid]/maps`. */
import { readFile, stat } from 'node:fs/promises';

import { requireLinux } from '../runtime/platform.js';
import { invalid } from '../util/errors.js';

/** How much of a mapping is in memory, in bytes. */
export interface MemoryUse {
  /** In memory. */
  rss: number;
  /** The same, with what is shared divided by those who share it. */
  pss: number;
  sharedClean: number;
  sharedDirty: number;
  privateClean: number;
  privateDirty: number;
  /** Swapped out. */
  swap: number;
}

/** One mapping of a process. */
export interface MemoryMap {
  /** First address, as `0x...`: it does not fit a number. */
  start: string;
  /** The address behind the last. */
  end: string;
  /** Bytes. */
  size: number;
  read: boolean;
  write: boolean;
  execute: boolean;
  /** `MAP_SHARED`: what is written goes to the file, and to all who have it mapped. */
  shared: boolean;
  /** The byte of the file at which it begins. */
  offset: number;
  /** `major:minor`, in hexadecimal digits. */
  device: string;
  inode: number;
  /** Its file, or `[heap]`, `[stack]`, ...; `undefined` for anonymous memory. */
  path: string | undefined;
  /** The file has been deleted. */
  deleted: boolean;
  /** `undefined` where the kernel does not say (`smaps` cannot be read). */
  use: MemoryUse | undefined;
}

export interface MemoryMapOptions {
  /** The process. Default: this one. */
  pid?: number | undefined;
  /** Only those whose path contains this, or for which this is true. Default: all. */
  filter?: string | RegExp | ((map: MemoryMap) => boolean) | undefined;
}

const DELETED = ' (deleted)';
const LINE = /^([0-9a-f]+)-([0-9a-f]+) (.)(.)(.)(.) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+)(?: +(.*))?$/;
const FIELD = /^(\w+): +(\d+) kB$/;
const FIELDS: Record<string, keyof MemoryUse> = {
  Rss: 'rss',
  Pss: 'pss',
  Shared_Clean: 'sharedClean',
  Shared_Dirty: 'sharedDirty',
  Private_Clean: 'privateClean',
  Private_Dirty: 'privateDirty',
  Swap: 'swap',
};

/**
 * The mappings of a process, by address; see proc_pid_maps(5), proc_pid_smaps(5). Rejects with `ENOENT` for a process that is
 * not there, `EACCES` for one that is not yours, `ERR_ZEROSEND_INVALID_ARGUMENT`.
 */
export async function memoryMaps(options: MemoryMapOptions = {}): Promise<MemoryMap[]> {
  const { pid = 'self', filter } = options;
  if (pid !== 'self' && !(Number.isSafeInteger(pid) && pid > 0)) throw invalid('pid', pid, 'a process, 1 or more');
  const matches = matcher(filter);
  requireLinux();
  const text = await readFile(`/proc/${pid}/smaps`, 'utf8').catch(() => readFile(`/proc/${pid}/maps`, 'utf8'));
  const maps = parseMaps(text);
  await Promise.all(maps.filter(({ deleted }) => deleted).map((map) => recognizeSuffix(map, `/proc/${pid}/root`)));
  return maps.filter(matches);
}

/**
 * The kernel appends ` (deleted)` to the path of a file that was unlinked, and a name may end so itself: then there is a file of
 * that name with the inode that is mapped.
 */
async function recognizeSuffix(map: MemoryMap, root: string): Promise<void> {
  const whole = `${map.path}${DELETED}`;
  const file = await stat(`${root}${whole}`).catch(() => undefined);
  if (file?.ino !== map.inode) return;
  map.path = whole;
  map.deleted = false;
}

/** The text of either file. */
export function parseMaps(text: string): MemoryMap[] {
  const maps: MemoryMap[] = [];
  let current: MemoryMap | undefined;
  for (const line of text.split('\n')) {
    const field = FIELD.exec(line);
    if (field !== null) {
      const name = FIELDS[field[1] as string];
      if (name === undefined || current === undefined) continue;
      current.use ??= { rss: 0, pss: 0, sharedClean: 0, sharedDirty: 0, privateClean: 0, privateDirty: 0, swap: 0 };
      current.use[name] = Number(field[2]) * 1024;
      continue;
    }
    const found = LINE.exec(line);
    if (found === null) continue;
    const [, start = '', end = '', read, write, execute, sharing, offset = '0', device = '', inode, name = ''] = found;
    const deleted = name.endsWith(DELETED);
    const path = unescaped(deleted ? name.slice(0, -DELETED.length) : name);
    current = {
      start: `0x${start}`,
      end: `0x${end}`,
      size: Number(BigInt(`0x${end}`) - BigInt(`0x${start}`)),
      read: read === 'r',
      write: write === 'w',
      execute: execute === 'x',
      shared: sharing === 's',
      offset: Number.parseInt(offset, 16),
      device,
      inode: Number(inode),
      path: path === '' ? undefined : path,
      deleted,
      use: undefined,
    };
    maps.push(current);
  }
  return maps;
}

/** A newline in a path is written as `\012`. */
function unescaped(path: string): string {
  return path.replaceAll('\\012', '\n');
}

function matcher(filter: MemoryMapOptions['filter']): (map: MemoryMap) => boolean {
  if (filter === undefined) return () => true;
  if (typeof filter === 'function') return filter;
  if (typeof filter === 'string') return ({ path }) => path?.includes(filter) === true;
  if (filter instanceof RegExp) return ({ path }) => path !== undefined && new RegExp(filter).test(path);
  throw invalid('filter', filter, 'a string, a RegExp or a function');
}
