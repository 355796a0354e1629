/** `pageCache`: shows which pages of a file are in the page cache, reads them into it, evicts them, and measures reads. */
import { readFile } from 'node:fs/promises';
import type { ErrnoName, MeasuredReport, ThroughputReport } from '#native';
import { runAbortableTask } from '../runtime/abortable-task.js';
import { engine, requestValue } from '../runtime/engine.js';
import { requireLinux } from '../runtime/platform.js';
import { resolveFile } from '../util/path.js';

/** Consecutive pages that are all in the page cache, or all not. */
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
  /** Pages in the page cache. */
  resident: number;
  /** All pages of the file, in order. */
  runs: PageRun[];
  /**
   * The system call used: cachestat(2) (Linux 6.5), or mincore(2), which reports all pages as resident for files that this user
   * neither owns nor may write to.
   */
  by: 'cachestat' | 'mincore';
}

export interface WarmOptions {
  /** Aborts at once. Pages read so far stay in the page cache. */
  signal?: AbortSignal | undefined;
  /** Called every 8 MiB with the bytes processed so far. */
  onProgress?: ((bytes: number) => void) | undefined;
}

export interface WarmResult {
  /** Pages of the file. */
  pages: number;
  /** Pages in the page cache before. */
  residentBefore: number;
  /** Pages in the page cache afterwards: fewer than `pages` when memory is short. */
  resident: number;
  /** Bytes read. */
  bytesRead: number;
}

/** The throughput of reading a file once. */
export interface PageCacheThroughput {
  /** In units of 10^6 bytes. */
  megabytesPerSecond: number;
  bytes: number;
  seconds: number;
  /** Pages in the page cache before. */
  residentBefore: number;
}

export interface PageCacheMeasurement {
  /** Bytes of the file. */
  size: number;
  /** Pages of the file. */
  pages: number;
  /** The first read, with the page cache unchanged. */
  first: PageCacheThroughput;
  /** The second read. */
  second: PageCacheThroughput;
  /** The read after eviction. `residentBefore` is 0 if all pages were evicted. */
  evicted: PageCacheThroughput;
  /** The read with `O_DIRECT`, which bypasses the page cache; `undefined` where the file system refuses it. */
  direct: PageCacheThroughput | undefined;
  /** The error when `direct` is undefined: `EINVAL`, ... */
  directRefusal: string | undefined;
}

/** Bytes of memory, from `/proc/meminfo`; see proc_meminfo(5). */
export interface PageCacheStatus {
  total: number;
  free: number;
  /** Memory available without swapping. Includes most of the page cache. */
  available: number;
  /** The page cache, with tmpfs and shared memory. */
  cached: number;
  buffers: number;
  /** Page cache that was used recently. */
  activeFile: number;
  /** Page cache that is reclaimed first. */
  inactiveFile: number;
  /** Tmpfs and shared memory. */
  shmem: number;
  /** Mapped by processes. */
  mapped: number;
  /** Modified pages that are not yet written to disk. */
  dirty: number;
  /** Pages that are being written to disk. */
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
 * The page cache. Paths must be of regular files: the functions reject with the errors of open(2) (`ENOENT`, `EACCES`, ...) and
 * with `ERR_ZEROSEND_NOT_REGULAR_FILE`. They run off the JavaScript thread.
 */
export const pageCache = {
  /** Which pages of a file are in the page cache. */
  async residency(file: string | URL): Promise<PageResidency> {
    const path = resolveFile(file);
    return await requestValue<PageResidency>((number) => engine().pageResidency(number, path));
  },

  /** Reads the pages of a file that are not in the page cache into it. Rejects with `ABORT_ERR` when aborted. */
  async warm(file: string | URL, options: WarmOptions = {}): Promise<WarmResult> {
    const path = resolveFile(file);
    return await runAbortableTask<WarmResult>(options, (number) => engine().warmPages(number, path));
  },

  /**
   * Writes modified pages to the disk (fdatasync(2)) and removes a file from the page cache (posix_fadvise(2),
   * `POSIX_FADV_DONTNEED`). Resolves with the pages left: those that are mapped or locked, and all pages of a file in memory
   * (tmpfs).
   */
  async evict(file: string | URL): Promise<PageResidency> {
    const path = resolveFile(file);
    return await requestValue<PageResidency>((number) => engine().evictPages(number, path));
  },

  /** The memory of this machine, by use. */
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
   * Measures four reads of a file: with the page cache unchanged, again, after eviction, and with `O_DIRECT`. Afterwards the
   * file is in the page cache. `onProgress` is called with the bytes of all four so far. Rejects with `ABORT_ERR` when aborted,
   * and with `ERR_ZEROSEND_INVALID_ARGUMENT` for an empty file.
   */
  async measure(file: string | URL, options: WarmOptions = {}): Promise<PageCacheMeasurement> {
    const path = resolveFile(file);
    const measured = await runAbortableTask<MeasuredReport>(options, (number) => engine().measurePages(number, path));
    return {
      size: measured.size,
      pages: measured.pages,
      first: throughput(measured.first),
      second: throughput(measured.second),
      evicted: throughput(measured.evicted),
      direct: measured.direct && throughput(measured.direct),
      directRefusal: (measured.directRefusal as ErrnoName | undefined)?.code,
    };
  },
};

function throughput({ bytes, seconds, residentBefore }: ThroughputReport): PageCacheThroughput {
  return { megabytesPerSecond: bytes / 1e6 / Math.max(seconds, 1e-9), bytes, seconds, residentBefore };
}
