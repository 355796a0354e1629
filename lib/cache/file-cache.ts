/** `FileCache`: files that are asked for again and again, kept ready to be sent. */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CachedFileInfo, CacheSettings } from '#native';
import { ask, engine } from '../runtime/engine.js';
import { IS_LINUX } from '../runtime/platform.js';
import { aborted, failure, invalid } from '../util/errors.js';
import { checkBytes } from '../util/options.js';

export interface FileCacheOptions {
  /** Files kept at most. Default 1,024. */
  maxFiles?: number | undefined;
  /** Bytes of all files at most. Default 536,870,912 (512 MiB). */
  maxBytes?: number | undefined;
  /** Bytes of one file at most; a larger one is served and not kept. Default 16,777,216 (16 MiB). */
  maxFileSize?: number | undefined;
  /**
   * Files of more than 65,536 bytes kept at most. Those are mapped, and each holds a descriptor and an area of address space;
   * smaller ones are in memory and hold neither. Default 256.
   */
  maxMapped?: number | undefined;
  /**
   * When a file is compared with the disk (size, modification and change time in nanoseconds, inode, device): at every hit,
   * which costs one statx(2); at the first hit after so many milliseconds; or not until it is invalidated. Default `'always'`.
   */
  revalidate?: 'always' | 'never' | number | undefined;
  /** Bring a file to be mapped into the page cache when it is loaded; see madvise(2), `MADV_POPULATE_READ`. Default false. */
  populate?: boolean | undefined;
  /** What the kernel is told of mappings; see madvise(2). Default `'normal'`. */
  advice?: 'normal' | 'sequential' | 'random' | 'willneed' | undefined;
}

export interface FileCacheStatistics {
  /** Files kept now. */
  files: number;
  /** Bytes of them. */
  bytes: number;
  /** How many of them are mapped. */
  mapped: number;
  /** Lookups that found a fresh file. */
  hits: number;
  /** Lookups that did not, those of missing files included. */
  misses: number;
  /** Comparisons with the disk. */
  revalidations: number;
  /** Files that were found to have changed. */
  stale: number;
  /** Files that had to go for others. */
  evictions: number;
  /**
   * Files that were served and not kept: too large, or changed within the last 50 ms (2 s where the file system has no
   * fractions of a second).
   */
  rejected: number;
  /** Lookups of missing files that were answered from memory. */
  negativeHits: number;
  /** `hits / (hits + misses)`; 0 before the first lookup. */
  hitRate: number;
}

/** A file that is kept. */
export interface FileCacheEntry {
  path: string;
  /** Bytes. */
  size: number;
  /** Last modification in milliseconds since 1970, with a fraction. */
  mtimeMs: number;
  /** Last change of content or inode in milliseconds since 1970, with a fraction. */
  ctimeMs: number;
  ino: number;
  dev: number;
  /** The weak entity tag that the plugin and the handler send. */
  etag: string;
  /** How often it was given out after the first time. */
  hits: number;
  /** Its bytes are mapped, not in memory. */
  mapped: boolean;
}

export interface PreloadOptions {
  /** Files loaded at once, 1 to 64. Default 4. */
  concurrency?: number | undefined;
  /** Stops after the files under way, and rejects with `ABORT_ERR`. What was loaded stays. */
  signal?: AbortSignal | undefined;
  /** Called after each file. `total` grows while directories are still walked. */
  onProgress?: ((progress: { loaded: number; failed: number; total: number }) => void) | undefined;
}

export interface PreloadResult {
  /** Files that are loaded now, or were already. */
  loaded: number;
  /** Files that could not be loaded, with the reasons; the first hundred of them. */
  failed: { path: string; error: Error }[];
}

const released = new FinalizationRegistry<number>((token) => engine().release(token));
const tokens = new WeakMap<object, number>();

/**
 * One version of a file, with its bytes. It stays good when the cache lets go of it, and when the file is replaced or deleted; its
 * memory goes when nobody holds it any more. Give it to `sendFile` as the source.
 */
export class CachedFile {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Last modification in milliseconds since 1970, with a fraction. */
  readonly mtimeMs: number;
  /** Last change of content or inode in milliseconds since 1970, with a fraction. */
  readonly ctimeMs: number;
  readonly ino: number;
  readonly dev: number;
  /** The weak entity tag that the plugin and the handler send. */
  readonly etag: string;

  /** @internal */
  constructor(token: number, info: CachedFileInfo) {
    this.path = info.path;
    this.size = info.size;
    this.mtimeMs = info.mtimeMs;
    this.ctimeMs = info.ctimeMs;
    this.ino = info.ino;
    this.dev = info.dev;
    this.etag = info.etag;
    tokens.set(this, token);
    released.register(this, token);
  }

  /** How often the cache has given it out, the first time not counted. */
  get hits(): number {
    return engine().cachedHits(tokenOf(this));
  }

  /**
   * A copy of `length` bytes (default: all that follow) from `offset` (default 0) on. Rejects with
   * `ERR_ZEROSEND_OUT_OF_RANGE` beyond its size, and with `ERR_ZEROSEND_TRUNCATED` when it is mapped and the file has
   * become shorter.
   */
  async read(offset = 0, length = Math.max(0, this.size - offset)): Promise<Buffer> {
    checkBytes('offset', offset);
    checkBytes('length', length);
    const event = await ask((number) => engine().readCached(number, tokenOf(this), offset, length));
    return event.bytes as Buffer;
  }
}

/** The engine's name for a file of a cache, for `sendFile`. */
export function tokenOf(file: CachedFile | FileCache): number {
  return tokens.get(file) as number;
}

/**
 * Files kept ready to be sent, in the order of their last use: those used longest ago go first when there are more than
 * `maxFiles`, `maxBytes` or `maxMapped` allow.
 *
 * For standalone use, and for the `cache` option of the plugin, the handler and the file server, which may share one.
 *
 * @throws `ERR_ZEROSEND_INVALID_ARGUMENT`, naming the option, its value and what is allowed; `ERR_ZEROSEND_UNSUPPORTED`.
 */
export class FileCache {
  #closed = false;
  #last: FileCacheStatistics | undefined;

  constructor(options: FileCacheOptions = {}) {
    const token = engine().openCache(readOptions(options));
    tokens.set(this, token);
    released.register(this, token, this);
  }

  /**
   * The file at `path` (relative to the working directory), from the cache or loaded into it; asked for many times at once,
   * it is loaded once. Rejects as opening it does (`ENOENT`, `EACCES`, ...), with `ERR_ZEROSEND_NOT_REGULAR_FILE`, and with
   * `ERR_ZEROSEND_CLOSED`.
   */
  async get(file: string | URL): Promise<CachedFile> {
    const name = resolve(file);
    this.#check();
    const event = await ask((number) => engine().getCached(number, tokenOf(this), name));
    return new CachedFile(event.token as number, event.file as CachedFileInfo);
  }

  /**
   * Loads files, and all files of directories and of those below, off the JavaScript thread. A file that cannot be loaded is no
   * error of the whole.
   */
  async preload(files: string | URL | Iterable<string | URL>, options: PreloadOptions = {}): Promise<PreloadResult> {
    const { concurrency = 4, signal, onProgress } = options;
    if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > 64) {
      throw invalid('concurrency', concurrency, 'an integer from 1 to 64');
    }
    const roots = typeof files === 'string' || files instanceof URL ? [files] : [...files];
    const waiting = roots.map(resolve);
    const result: PreloadResult = { loaded: 0, failed: [] };
    let failed = 0;
    let total = waiting.length;
    let busy = 0;
    if (signal?.aborted) throw aborted(signal);
    const fail = (name: string, error: unknown) => {
      failed += 1;
      if (result.failed.length < 100) result.failed.push({ path: name, error: error as Error });
    };
    const one = async (name: string) => {
      try {
        await this.get(name);
        result.loaded += 1;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ERR_ZEROSEND_NOT_REGULAR_FILE') {
          fail(name, error);
        } else {
          total -= 1;
          try {
            // Not opendir(): Node leaves its descriptor open when a worker thread is terminated meanwhile.
            for (const entry of await readdir(name, { withFileTypes: true })) {
              if (!entry.isFile() && !entry.isDirectory()) continue;
              waiting.push(path.join(name, entry.name));
              total += 1;
            }
          } catch (inner) {
            total += 1;
            fail(name, (inner as NodeJS.ErrnoException).code === 'ENOTDIR' ? error : inner);
          }
        }
      }
      onProgress?.({ loaded: result.loaded, failed, total });
    };
    await new Promise<void>((done, reject) => {
      const next = () => {
        if (signal?.aborted) {
          if (busy === 0) reject(aborted(signal));
          return;
        }
        if (busy === 0 && waiting.length === 0) done();
        while (busy < concurrency && waiting.length > 0) {
          busy += 1;
          one(waiting.pop() as string).then(() => {
            busy -= 1;
            next();
          }, reject);
        }
      };
      next();
    });
    return result;
  }

  /** Forgets a file, so that the next who asks gets it from the disk. True: it was there. */
  invalidate(file: string | URL): boolean {
    const name = resolve(file);
    return !this.#closed && engine().invalidateCached(tokenOf(this), name);
  }

  /** Forgets all files. */
  clear(): void {
    if (!this.#closed) engine().clearCache(tokenOf(this));
  }

  /** All files that are kept, the last used first. */
  entries(): FileCacheEntry[] {
    return this.#closed ? [] : engine().cacheEntries(tokenOf(this));
  }

  /** What it has counted; after `close` the last counts. */
  stats(): FileCacheStatistics {
    if (this.#last !== undefined) return { ...this.#last };
    const counts = engine().cacheCounters(tokenOf(this));
    const lookups = counts.hits + counts.misses;
    return { ...counts, hitRate: lookups === 0 ? 0 : counts.hits / lookups };
  }

  /** Forgets all files and keeps none from now on: who uses it serves without it. Closing it again does nothing. */
  close(): void {
    if (this.#closed) return;
    engine().closeCache(tokenOf(this));
    this.#last = { ...this.stats(), files: 0, bytes: 0, mapped: 0 };
    this.#closed = true;
    released.unregister(this);
    engine().release(tokenOf(this));
  }

  #check(): void {
    if (this.#closed) throw failure('ERR_ZEROSEND_CLOSED', 'the cache is closed');
  }
}

/**
 * The cache that an option asks for; `undefined`: none. A cache that is made here belongs to who asks. Without an engine that
 * could keep files the option is checked, and there is none.
 */
export function cacheOption(
  value: boolean | FileCacheOptions | FileCache | undefined,
  byDefault: FileCacheOptions | false,
): FileCache | undefined {
  if (value instanceof FileCache) return value;
  const wanted = value === undefined ? byDefault : value;
  if (wanted === false) return undefined;
  const options = wanted === true ? {} : wanted;
  if (typeof options !== 'object' || options === null)
    throw invalid('cache', value, 'a boolean, options of a FileCache, or a FileCache');
  if (IS_LINUX) return new FileCache(options);
  readOptions(options);
  return undefined;
}

function resolve(file: string | URL): string {
  const name = file instanceof URL && file.protocol === 'file:' ? fileURLToPath(file) : file;
  if (typeof name !== 'string' || name === '' || name.includes('\0')) {
    throw invalid('path', file, 'a path without NUL bytes, or a file: URL');
  }
  return path.resolve(name);
}

const ADVICE = ['normal', 'sequential', 'random', 'willneed'] as const;
const NAMES = ['maxFiles', 'maxBytes', 'maxFileSize', 'maxMapped', 'revalidate', 'populate', 'advice'];

function readOptions(options: FileCacheOptions): CacheSettings {
  if (typeof options !== 'object' || options === null) throw invalid('options', options, 'an object');
  for (const name of Object.keys(options)) {
    if (!NAMES.includes(name))
      throw failure('ERR_ZEROSEND_INVALID_ARGUMENT', `unknown cache option '${name}': use one of ${NAMES.join(', ')}`);
  }
  const { advice = 'normal', populate = false, revalidate = 'always' } = options;
  if (!ADVICE.includes(advice)) throw invalid('advice', advice, `one of ${ADVICE.join(', ')}`);
  if (typeof populate !== 'boolean') throw invalid('populate', populate, 'a boolean');
  const settings: CacheSettings = { advice, populate };
  if (revalidate === 'always') settings.revalidate = 0;
  else if (revalidate !== 'never') {
    if (!Number.isInteger(revalidate) || revalidate < 1) {
      throw invalid('revalidate', revalidate, "'always', 'never' or milliseconds from 1 up");
    }
    settings.revalidate = revalidate;
  }
  for (const name of ['maxFiles', 'maxBytes', 'maxFileSize', 'maxMapped'] as const) {
    const value = options[name];
    if (value === undefined) continue;
    const least = name === 'maxFiles' || name === 'maxBytes' ? 1 : 0;
    if (!Number.isSafeInteger(value) || value < least) throw invalid(name, value, `an integer from ${least} up`);
    settings[name] = value;
  }
  return settings;
}
