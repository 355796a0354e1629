/** `pageCache`: what of files the kernel has in memory, bringing it there, getting it out, and what that is worth. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ErrnoName, MeasuredReport, PaceReport } from '#native';
import { ask, engine } from '../runtime/engine.js';
import { requireLinux } from '../runtime/platform.js';
import { aborted, invalid } from '../util/errors.js';

/** Pages one after another that are all in the page cache, or all not. */
export interface PageRun {
  resident: boolean;
  pages: number;
}

export interface PageResidency {
  /** Bytes of the file. */
  size: number;
  /** Bytes of a page. */
  pageSize: number;
  /** Pages of the file. */
  pages: number;
  /** How many of them are in the page cache. */
  resident: number;
  /** Which, from the beginning of the file to its end. */
  runs: PageRun[];
  /**
   * The system call that was asked: cachestat(2) (Linux 6.5), or mincore(2), which says of files that this user neither owns nor
   * may write to that all of them is there.
   */
  by: 'cachestat' | 'mincore';
}

export interface WarmOptions {
  /** Cancels at once. What was read stays. */
  signal?: AbortSignal | undefined;
  /** Called with the bytes that are done with, every 8 MiB. */
  onProgress?: ((bytes: number) => void) | undefined;
}

export interface WarmResult {
  /** Pages of the file. */
  pages: number;
  /** How many were in the page cache before. */
  residentBefore: number;
  /** How many are there now: fewer than all when memory is short. */
  resident: number;
  /** Bytes read. */
  bytesRead: number;
}

/** How fast a file could be read. */
export interface PageCachePace {
  /** In units of 10^6 bytes. */
  megabytesPerSecond: number;
  bytes: number;
  seconds: number;
  /** Pages that were in the page cache before. */
  residentBefore: number;
}

export interface PageCacheMeasurement {
  /** Bytes of the file. */
  size: number;
  /** Pages of the file. */
  pages: number;
  /** As it was found. */
  first: PageCachePace;
  /** Once more: hot. */
  second: PageCachePace;
  /** After it was evicted: cold, as far as `residentBefore` is 0. */
  evicted: PageCachePace;
  /** Past the page cache, `O_DIRECT`; `undefined` where the filesystem refuses that. */
  direct: PageCachePace | undefined;
  /** Why: `EINVAL`, ... */
  directRefusal: string | undefined;
}

/** Bytes of memory, from `/proc/meminfo`; see proc_meminfo(5). */
export interface PageCacheStatus {
  total: number;
  free: number;
  /** What could be had without swapping: most of the page cache is in it. */
  available: number;
  /** The page cache, with tmpfs and shared memory. */
  cached: number;
  buffers: number;
  /** Of it, used of late. */
  activeFile: number;
  /** Of it, the first to go. */
  inactiveFile: number;
  /** Tmpfs and shared memory. */
  shmem: number;
  /** Mapped by processes. */
  mapped: number;
  /** To be written to disks. */
  dirty: number;
  /** Being written to disks. */
  writeback: number;
}

const MEMINFO: Record<keyof PageCacheStatus, string> = {
  total: 'MemTotal',
  free: 'MemFree',
  available: 'MemAvailable',
  cached: 'Cached',
  buffers: 'Buffers',
  activeFile: 'Active(file)',
  inactiveFile: 'Inactive(file)',
  shmem: 'Shmem',
  mapped: 'Mapped',
  dirty: 'Dirty',
  writeback: 'Writeback',
};

/**
 * The page cache. Paths are of regular files; all reject as open(2) does (`ENOENT`, `EACCES`, ...) and with
 * `ERR_ZEROSEND_NOT_REGULAR_FILE`. The work is done off the JavaScript thread.
 */
export const pageCache = {
  /** Which pages of a file are in memory. */
  async residency(file: string | URL): Promise<PageResidency> {
    const name = checkPath(file);
    return (await report<{ pages: PageResidency }>((number) => engine().pageResidency(number, name))).pages;
  },

  /** Reads what of a file is not in memory, so that it is. Rejects with `ABORT_ERR`. */
  async warm(file: string | URL, options: WarmOptions = {}): Promise<WarmResult> {
    const name = checkPath(file);
    const { onProgress } = options;
    return (await underWay<{ warmed: WarmResult }>(options, onProgress, (number) => engine().warmPages(number, name)))
      .warmed;
  },

  /**
   * Writes what is changed to the disk (fdatasync(2)) and takes a file out of memory (posix_fadvise(2), `POSIX_FADV_DONTNEED`).
   * Resolves with what is left: what somebody has mapped or locked, and all of a file that lives in memory (tmpfs).
   */
  async evict(file: string | URL): Promise<PageResidency> {
    const name = checkPath(file);
    return (await report<{ pages: PageResidency }>((number) => engine().evictPages(number, name))).pages;
  },

  /** How much memory is used for what. */
  async status(): Promise<PageCacheStatus> {
    requireLinux();
    const text = await readFile('/proc/meminfo', 'utf8');
    const values = new Map(
      [...text.matchAll(/^(\S+): +(\d+) kB$/gm)].map(([, name, kib]) => [name, Number(kib) * 1024]),
    );
    const entries = Object.entries(MEMINFO).map(([key, name]) => [key, values.get(name) ?? 0]);
    return Object.fromEntries(entries) as unknown as PageCacheStatus;
  },

  /**
   * Reads a file as it is found, once more, after evicting it, and past the page cache, and says how fast each was. Afterwards
   * it is in memory. `onProgress` hears of the bytes of all four. Rejects with `ABORT_ERR`, and with
   * `ERR_ZEROSEND_INVALID_ARGUMENT` for an empty file.
   */
  async measure(file: string | URL, options: WarmOptions = {}): Promise<PageCacheMeasurement> {
    const name = checkPath(file);
    const { onProgress } = options;
    const begin = (number: number) => engine().measurePages(number, name);
    const { measured } = await underWay<{ measured: MeasuredReport }>(options, onProgress, begin);
    return {
      size: measured.size,
      pages: measured.pages,
      first: pace(measured.first),
      second: pace(measured.second),
      evicted: pace(measured.evicted),
      direct: measured.direct && pace(measured.direct),
      directRefusal: (measured.directRefusal as ErrnoName | undefined)?.code,
    };
  },
};

function pace({ bytes, seconds, residentBefore }: PaceReport): PageCachePace {
  return { megabytesPerSecond: bytes / 1e6 / Math.max(seconds, 1e-9), bytes, seconds, residentBefore };
}

function checkPath(file: string | URL): string {
  const given = file instanceof URL && file.protocol === 'file:' ? fileURLToPath(file) : file;
  if (typeof given !== 'string' || given === '' || given.includes('\0')) {
    throw invalid('path', file, 'a path without NUL bytes, or a file: URL');
  }
  return path.resolve(given);
}

async function report<T>(start: (number: number) => void): Promise<T> {
  return (await ask(start)) as unknown as T;
}

/** Something that tells of its progress and can be cancelled. */
async function underWay<T>(
  { signal }: WarmOptions,
  onProgress: ((bytes: number) => void) | undefined,
  start: (number: number) => number,
): Promise<T> {
  if (onProgress !== undefined && typeof onProgress !== 'function')
    throw invalid('onProgress', onProgress, 'a function');
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalid('signal', signal, 'an AbortSignal');
  if (signal?.aborted) throw aborted(signal);
  let token: number | undefined;
  const stop = () => {
    if (token !== undefined) engine().release(token);
  };
  signal?.addEventListener('abort', stop, { once: true });
  try {
    const done = ask(
      (number) => {
        token = start(number);
      },
      (bytes) => onProgress?.(bytes),
    );
    return (await done) as unknown as T;
  } catch (error) {
    throw signal?.aborted ? aborted(signal) : error;
  } finally {
    signal?.removeEventListener('abort', stop);
    stop();
  }
}
