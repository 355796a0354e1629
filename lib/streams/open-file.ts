/**
 * A regular file, open for reading, with its metadata as of the opening. The counterpart of
 * `crates/core/src/fs/open_file.rs`; the comparison test holds the two together.
 */
import { type BigIntStats, constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { getSystemErrorMap } from 'node:util';

/** Without these flags, which Windows does not have, opening a FIFO would wait for a writer and a terminal become ours. */
const OPEN_FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOCTTY ?? 0);

/** Refuses a symbolic link as the last name. Windows has no such flag. */
export const NO_FOLLOW = constants.O_NOFOLLOW ?? 0;

/** Nanoseconds that fit into 64 bits: the years 1677 to 2262, as on Linux. */
const LAST_NS = 2n ** 63n - 1n;

export const SECOND_NS = 1_000_000_000n;
/** Longer than one tick of the clock that file times come from. */
const TICK_NS = 50_000_000n;
/** The coarsest times in use: FAT has the modification time in units of two seconds. */
const COARSE_NS = 2n * SECOND_NS;
/** FAT's unit of the creation time, which Linux before 6.0 gives as the change time. */
const FAT_UNIT_NS = 10_000_000n;

/** The metadata of a file, and the identity of its version. */
export interface FileMeta {
  /** Bytes. */
  size: number;
  /** Last modification in nanoseconds since 1970. */
  mtimeNs: bigint;
  /** Last change of content or inode in nanoseconds since 1970. */
  ctimeNs: bigint;
  /**
   * Two that are equal are the same version of the same file, provided that the first was settled when it was read. The
   * change time is a part of it because programs cannot set it: `tar` and `cp -p` put an old modification time on new bytes.
   */
  version: string;
}

/** A regular file, open for reading; whoever has it closes it. */
export interface OpenFile {
  handle: FileHandle;
  meta: FileMeta;
}

/** What an open handle can lead to. */
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

/** The metadata of an open file now. */
export async function statOf(handle: FileHandle): Promise<FileMeta> {
  return metaOf(await handle.stat({ bigint: true }));
}

/** Closes a handle that was only read from: there is nothing to lose, so nobody waits for it. */
export function close(handle: FileHandle): void {
  handle.close().catch(() => {});
}

/**
 * Whether a later write is certain to change this metadata. False while the file is so new that the clock of its file system
 * (Windows: ticks of 16 ms) may not have advanced since the last write. Call it right after the metadata was read.
 */
export function isSettled(meta: FileMeta): boolean {
  return isOlderThan(meta, TICK_NS, nowNs());
}

/** Whether the file was last changed more than `ns` before `now`, by the clock and to the resolution of its file system. */
export function isOlderThan({ mtimeNs, ctimeNs }: FileMeta, ns: bigint, now: bigint): boolean {
  // The file system has no times, so a write would show in nothing but the size.
  if (mtimeNs === 0n && ctimeNs === 0n) return false;
  const isCoarse = mtimeNs % SECOND_NS === 0n && ctimeNs % FAT_UNIT_NS === 0n;
  const least = isCoarse && ns < COARSE_NS + TICK_NS ? COARSE_NS + TICK_NS : ns;
  // A change time in the future is that of a server whose clock is ahead of ours: its age is unknown. A modification time in
  // the future was set by a program.
  const sinceModified = now - mtimeNs;
  return now - ctimeNs >= least && !(sinceModified >= 0n && sinceModified < least);
}

/** The time of day in nanoseconds since 1970. */
export function nowNs(): bigint {
  return BigInt(Date.now()) * 1_000_000n;
}

/** A failure of opening, as the engine tells of it: whatever syscall it came from, it is that of `open`. */
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
