/** The options of a `FileCache`. */
import type { CacheSettings } from '#native';
import { failure, invalid } from '../util/errors.js';

export interface FileCacheOptions {
  /** Maximum number of cached files. Default 1,024. */
  maxFiles?: number | undefined;
  /** Maximum total size of cached files in bytes. Default 536,870,912 (512 MiB). */
  maxBytes?: number | undefined;
  /** Maximum size of a cached file in bytes; larger files are served without being cached. Default 16,777,216 (16 MiB). */
  maxFileSize?: number | undefined;
  /**
   * Maximum number of cached files of more than 65,536 bytes. Those are mapped, and each takes a descriptor and a range of
   * address space; smaller files are copied into memory. Default 256.
   */
  maxMapped?: number | undefined;
  /**
   * When to compare a cached file with the disk (size, modification and change time in nanoseconds, inode, device): at every
   * hit (`'always'`), which costs one statx(2); at the first hit after this many milliseconds; or only when it is invalidated
   * (`'never'`). Default `'always'`.
   */
  revalidate?: 'always' | 'never' | number | undefined;
  /** Read mapped files into the page cache when they are loaded; see madvise(2), `MADV_POPULATE_READ`. Default false. */
  populate?: boolean | undefined;
  /** The madvise(2) advice for mapped files. Default `'normal'`. */
  advice?: 'normal' | 'sequential' | 'random' | 'willneed' | undefined;
}

const ADVICE = ['normal', 'sequential', 'random', 'willneed'] as const;
const NAMES = ['maxFiles', 'maxBytes', 'maxFileSize', 'maxMapped', 'revalidate', 'populate', 'advice'];

/** Checks the options. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. */
export function cacheSettings(options: FileCacheOptions): CacheSettings {
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
    const min = name === 'maxFiles' || name === 'maxBytes' ? 1 : 0;
    if (!Number.isSafeInteger(value) || value < min) throw invalid(name, value, `an integer from ${min} up`);
    settings[name] = value;
  }
  return settings;
}
