/** `FileCache`: frequently requested files, ready to be sent. */
import type { CachedFileInfo } from '#native';
import { engine, request } from '../runtime/engine.js';
import { resolveFile } from '../util/path.js';
import { CachedFile } from './cached-file.js';
import { idOf, isReleased, register, release } from './handles.js';
import { cacheSettings, type FileCacheOptions } from './options.js';
import { type PreloadOptions, type PreloadResult, preload } from './preload.js';

export interface FileCacheStatistics {
  /** Number of cached files. */
  files: number;
  /** Their total size in bytes. */
  bytes: number;
  /** How many of them are mapped. */
  mapped: number;
  /** Lookups that found a valid file. */
  hits: number;
  /** All other lookups, including those of missing files. */
  misses: number;
  /** Comparisons with the disk. */
  revalidations: number;
  /** Revalidations that found a changed file. */
  stale: number;
  /** Files evicted to make room for others. */
  evictions: number;
  /**
   * Files served without being cached: too large, or modified within the last 50 ms (2 s on file systems whose timestamps have
   * whole seconds).
   */
  rejected: number;
  /** Lookups of missing files that were answered from memory. */
  negativeHits: number;
  /** `hits / (hits + misses)`; 0 before the first lookup. */
  hitRate: number;
}

/** A cached file. */
export interface FileCacheEntry {
  path: string;
  /** Bytes. */
  size: number;
  /** Time of the last modification in milliseconds since 1970, with a fraction. */
  mtimeMs: number;
  /** Time of the last change of content or inode in milliseconds since 1970, with a fraction. */
  ctimeMs: number;
  ino: number;
  dev: number;
  /** The weak entity tag that the plugin and the handler send. */
  etag: string;
  /** How often the cache has returned this file, not counting the first time. */
  hits: number;
  /** The content is mapped instead of copied into memory. */
  mapped: boolean;
}

/**
 * An LRU cache of files: the least recently used files are evicted when `maxFiles`, `maxBytes` or `maxMapped` is exceeded.
 *
 * Can be used directly, or with the `cache` option of the plugin, the handler and the file server, which may share one.
 *
 * @throws `ERR_ZEROSEND_INVALID_ARGUMENT` with the name of the option, `ERR_ZEROSEND_UNSUPPORTED`.
 */
export class FileCache {
  #finalStatistics: FileCacheStatistics | undefined;

  constructor(options: FileCacheOptions = {}) {
    register(this, engine().openCache(cacheSettings(options)));
  }

  /**
   * Returns the file at `path` (relative to the working directory), loading it if necessary. Concurrent calls for the same
   * file load it once. Rejects as opening the file does (`ENOENT`, `EACCES`, ...), with `ERR_ZEROSEND_NOT_REGULAR_FILE`, and
   * with `ERR_ZEROSEND_CLOSED`.
   */
  async get(file: string | URL): Promise<CachedFile> {
    const path = resolveFile(file);
    const id = idOf(this);
    const event = await request((number) => engine().getCached(number, id, path));
    return new CachedFile(event.handle as number, event.value as CachedFileInfo);
  }

  /**
   * Loads files, and all files below directories, without blocking the JavaScript thread. Files that cannot be loaded are listed
   * in the result.
   */
  async preload(files: string | URL | Iterable<string | URL>, options: PreloadOptions = {}): Promise<PreloadResult> {
    return await preload(files, (path) => this.get(path), options);
  }

  /** Removes a file, so that the next lookup reads it from the disk. Returns whether it was cached. */
  invalidate(file: string | URL): boolean {
    const path = resolveFile(file);
    return !isReleased(this) && engine().invalidateCached(idOf(this), path);
  }

  /** Removes all files. */
  clear(): void {
    if (!isReleased(this)) engine().clearCache(idOf(this));
  }

  /** All cached files, the most recently used first. */
  entries(): FileCacheEntry[] {
    return isReleased(this) ? [] : engine().cacheEntries(idOf(this));
  }

  /** A copy of the counters; after `close`, the final values. */
  stats(): FileCacheStatistics {
    if (this.#finalStatistics !== undefined) return { ...this.#finalStatistics };
    const counts = engine().cacheCounters(idOf(this));
    const lookups = counts.hits + counts.misses;
    return { ...counts, hitRate: lookups === 0 ? 0 : counts.hits / lookups };
  }

  /** Removes all files and caches nothing from now on; users of the cache continue without it. Repeated calls do nothing. */
  close(): void {
    if (isReleased(this)) return;
    engine().closeCache(idOf(this));
    this.#finalStatistics = { ...this.stats(), files: 0, bytes: 0, mapped: 0 };
    release(this);
  }
}
