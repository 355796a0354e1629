/** The `cache` option of static serving. */
import { IS_LINUX } from '../runtime/platform.js';
import { invalid } from '../util/errors.js';
import { FileCache } from './file-cache.js';
import { cacheSettings, type FileCacheOptions } from './options.js';

/**
 * The cache for a `cache` option: the given one, or a new one, which the caller must close; `undefined` for none. On other
 * platforms than Linux the option is checked and nothing is cached. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`.
 */
export function cacheOption(
  value: boolean | FileCacheOptions | FileCache | undefined,
  defaults: FileCacheOptions | false,
): FileCache | undefined {
  if (value instanceof FileCache) return value;
  const selected = value === undefined ? defaults : value;
  if (selected === false) return undefined;
  const options = selected === true ? {} : selected;
  if (typeof options !== 'object' || options === null)
    throw invalid('cache', value, 'a boolean, options of a FileCache, or a FileCache');
  if (IS_LINUX) return new FileCache(options);
  cacheSettings(options);
  return undefined;
}
