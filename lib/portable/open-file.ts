/**
 * A regular file, open for reading, with its metadata as of the opening. The counterpart of
 * `crates/core/src/files/open_file.rs`; the comparison test holds the two together.
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

/** What is known of a file since it was opened. */
export interface FileMeta {
  /** Bytes. */
  size: number;
  /** Last modification in nanoseconds since 1970. */
  mtimeNs: bigint;
  /** Two that are equal are the same version of the same file. */
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
 * Whether a write that came after this was read would show in it: not while the file is so new that the file system's
 * clock, which ticks every 1 to 10 ms (Windows: up to 16), may not have moved on since it was written.
 */
export function isSettled({ mtimeNs }: FileMeta): boolean {
  const age = BigInt(Date.now()) * 1_000_000n - mtimeNs;
  // A time in the future says nothing about when it was written.
  return age < 0n || age >= 50_000_000n;
}

/** A failure of opening, as the engine tells of it: whatever syscall it came from, it is that of `open`. */
export function openError(error: unknown, path: string): NodeJS.ErrnoException {
  const { code, errno, syscall } = error as NodeJS.ErrnoException;
  if (code === undefined || errno === undefined || syscall === undefined) return error as Error;
  const [, description = code] = getSystemErrorMap().get(errno) ?? [];
  return Object.assign(new Error(`${code}: ${description}, open '${path}'`), { code, errno, syscall: 'open', path });
}

function metaOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): FileMeta {
  const mtime = mtimeNs > LAST_NS ? LAST_NS : mtimeNs < -LAST_NS - 1n ? -LAST_NS - 1n : mtimeNs;
  return { size: Number(size), mtimeNs: mtime, version: [dev, ino, size, mtimeNs, ctimeNs].join() };
}
