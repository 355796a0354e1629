/** `memoryMaps`: the memory mappings of a process, from `/proc/[pid]/smaps` and `/proc/[pid]/maps`. */
import { readFile, stat } from 'node:fs/promises';

import { requireLinux } from '../runtime/platform.js';
import { invalid } from '../util/errors.js';

/** The memory usage of a mapping in bytes. */
export interface MemoryUse {
  /** Resident set size. */
  rss: number;
  /** Proportional set size: shared pages are divided by the number of processes that map them. */
  pss: number;
  sharedClean: number;
  sharedDirty: number;
  privateClean: number;
  privateDirty: number;
  /** Swapped out. */
  swap: number;
}

/** A mapping of a process. */
export interface MemoryMap {
  /** First address, as `0x...`: it may exceed the range of a number. */
  start: string;
  /** The address after the last byte. */
  end: string;
  /** Size in bytes. */
  size: number;
  read: boolean;
  write: boolean;
  execute: boolean;
  /** `MAP_SHARED`: writes change the file and are visible to all processes that map it. */
  shared: boolean;
  /** The offset in the file in bytes. */
  offset: number;
  /** The device of the file: `major:minor` in hexadecimal. */
  device: string;
  inode: number;
  /** The path of the file, or `[heap]`, `[stack]`, ...; `undefined` for anonymous memory. */
  path: string | undefined;
  /** The file has been deleted. */
  deleted: boolean;
  /** `undefined` if `smaps` is not readable. */
  use: MemoryUse | undefined;
}

export interface MemoryMapOptions {
  /** The process id. Default: this process. */
  pid?: number | undefined;
  /** Return only mappings whose path contains this string or matches this expression, or for which this function returns true. */
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
 * The mappings of a process, in order of their addresses; see proc_pid_maps(5), proc_pid_smaps(5). Rejects with `ENOENT` if the
 * process does not exist, `EACCES` if permission is denied, and `ERR_ZEROSEND_INVALID_ARGUMENT`.
 */
export async function memoryMaps(options: MemoryMapOptions = {}): Promise<MemoryMap[]> {
  const { pid = 'self', filter } = options;
  if (pid !== 'self' && !(Number.isSafeInteger(pid) && pid > 0))
    throw invalid('pid', pid, 'a process id, an integer from 1 up');
  const matches = matcher(filter);
  requireLinux();
  const text = await readFile(`/proc/${pid}/smaps`, 'utf8').catch(() => readFile(`/proc/${pid}/maps`, 'utf8'));
  const maps = parseMaps(text);
  await Promise.all(maps.filter(({ deleted }) => deleted).map((map) => recognizeSuffix(map, `/proc/${pid}/root`)));
  return maps.filter(matches);
}

/**
 * The kernel appends ` (deleted)` to the path of a file that was unlinked, but a file name can have this suffix, too: then a file
 * with this name and the same inode exists.
 */
async function recognizeSuffix(map: MemoryMap, root: string): Promise<void> {
  const fullPath = `${map.path}${DELETED}`;
  const file = await stat(`${root}${fullPath}`).catch(() => undefined);
  if (file?.ino !== map.inode) return;
  map.path = fullPath;
  map.deleted = false;
}

/** Parses the content of `maps` or `smaps`. */
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

/** The kernel writes a newline in a path as `\012`. */
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
