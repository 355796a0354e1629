/**
 * A regular file, open for reading, with its metadata. The counterpart of
 * `crates/core/src/fs/open_file.rs`; a test compares the two.
 */
import { type BigIntStats, constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { getSystemErrorMap } from 'node:util';

/**
 * O_NONBLOCK: opening a FIFO must not block. O_NOCTTY: a terminal must not become the controlling terminal. Windows has neither.
 */
const OPEN_FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOCTTY ?? 0);

/** Refuses a symbolic link as the last segment. Not available on Windows. */
export const NO_FOLLOW = constants.O_NOFOLLOW ?? 0;

/** Times are limited to 64 bits: the years 1677 to 2262, as on Linux. */
const LAST_NS = 2n ** 63n - 1n;

export const SECOND_NS = 1_000_000_000n;
/** Longer than a tick of the clock for file times. */
const TICK_NS = 50_000_000n;
/** The coarsest resolution: FAT stores modification times in units of two seconds. */
const COARSE_NS = 2n * SECOND_NS;
/** The unit of creation times on FAT, which Linux before 6.0 reports as change times. */
const FAT_UNIT_NS = 10_000_000n;

/** The metadata of a file, and the identity of its version. */
export interface FileMeta {
  /** Size in bytes. */
  size: number;
  /** Time of the last modification in nanoseconds since 1970. */
  mtimeNs: bigint;
  /** Time of the last change of content or inode in nanoseconds since 1970. */
  ctimeNs: bigint;
  /**
   * Equal for the same version of the same file, if the metadata was settled when it was read ({@link isSettled}). Includes the
   * change time, which programs cannot set: `tar` and `cp -p` set old modification times on new content.
   */
  version: string;
}

/** A regular file, open for reading. Must be closed. */
export interface OpenFile {
  handle: FileHandle;
  meta: FileMeta;
}

/** Opens a regular file. */
export async function openRegular(path: string, flags: number): Promise<OpenFile | 'directory' | 'not regular'> {
  const handle = await open(path, OPEN_FLAGS | flags);
  let opened: OpenFile | 'directory' | 'not regular' = 'not regular';
  try {
    const stats = await handle.stat({ bigint: true });
    if (stats.isDirectory()) opened = 'directory';
    else if (stats.isFile()) opened = { handle, meta: metaOf(stats) };
  } finally {
    if (typeof opened === 'string') close(handle);
  }
  return opened;
}

/** The current metadata of an open file. */
export async function statOf(handle: FileHandle): Promise<FileMeta> {
  return metaOf(await handle.stat({ bigint: true }));
}

/** Closes a handle in the background. Errors are ignored: nothing was written. */
export function close(handle: FileHandle): void {
  handle.close().catch(() => {});
}

/**
 * Whether a later write certainly changes this metadata. False for a file so new that the clock of its file system (ticks of 16 ms
 * on Windows) may not have advanced since the last write. Must be called directly after the metadata was read.
 */
export function isSettled(meta: FileMeta): boolean {
  return isOlderThan(meta, TICK_NS, nowNs());
}

/** Whether the file was last changed more than `ns` before `now`, with regard to the resolution of its file system. */
export function isOlderThan({ mtimeNs, ctimeNs }: FileMeta, ns: bigint, now: bigint): boolean {
  // A file system without times: a write may change the size only.
  if (mtimeNs === 0n && ctimeNs === 0n) return false;
  const isCoarse = mtimeNs % SECOND_NS === 0n && ctimeNs % FAT_UNIT_NS === 0n;
  const min = isCoarse && ns < COARSE_NS + TICK_NS ? COARSE_NS + TICK_NS : ns;
  // A change time in the future comes from a file server whose clock is ahead: the age is unknown. A modification time in the
  // future was set by a program.
  const sinceModified = now - mtimeNs;
  return now - ctimeNs >= min && !(sinceModified >= 0n && sinceModified < min);
}

/** The current time in nanoseconds since 1970. */
export function nowNs(): bigint {
  return BigInt(Date.now()) * 1_000_000n;
}

/** The error of a failed open, in the form of the native engine: `syscall` is always `open`. */
export function openError(error: unknown, path: string): NodeJS.ErrnoException {
  const { code, errno, syscall } = error as NodeJS.ErrnoException;
  if (code === undefined || errno === undefined || syscall === undefined) return error as Error;
  const [, description = code] = getSystemErrorMap().get(errno) ?? [];
  return Object.assign(new Error(`${code}: ${description}, open '${path}'`), { code, errno, syscall: 'open', path });
}

function metaOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): FileMeta {
  const clamp = (ns: bigint) => (ns > LAST_NS ? LAST_NS : ns < -LAST_NS - 1n ? -LAST_NS - 1n : ns);
  const [mtime, ctime] = [clamp(mtimeNs), clamp(ctimeNs)];
  return { size: Number(size), mtimeNs: mtime, ctimeNs: ctime, version: [dev, ino, size, mtimeNs, ctimeNs].join() };
}
