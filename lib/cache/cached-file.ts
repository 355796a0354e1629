/** A file of a `FileCache`. */
import type { CachedFileInfo } from '#native';
import { engine, requestValue } from '../runtime/engine.js';
import { checkBytes } from '../util/options.js';
import { idOf, register } from './handles.js';

/**
 * One version of a file with its content. It stays valid after the cache has evicted it and after the file was replaced or
 * deleted; its memory is freed when it is garbage collected. Can be passed to `sendFile` as the source.
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
  constructor(id: number, info: CachedFileInfo) {
    this.path = info.path;
    this.size = info.size;
    this.mtimeMs = info.mtimeMs;
    this.ctimeMs = info.ctimeMs;
    this.ino = info.ino;
    this.dev = info.dev;
    this.etag = info.etag;
    register(this, id);
  }

  /** How often the cache has returned this file, not counting the first time. */
  get hits(): number {
    return engine().cachedHits(idOf(this));
  }

  /**
   * Copies `length` bytes (default: up to the end) from `offset` (default 0). Rejects with `ERR_ZEROSEND_OUT_OF_RANGE` beyond
   * the end of the file, and with `ERR_ZEROSEND_TRUNCATED` if the file is mapped and was truncated.
   */
  async read(offset = 0, length = Math.max(0, this.size - offset)): Promise<Buffer> {
    checkBytes('offset', offset);
    checkBytes('length', length);
    return await requestValue<Buffer>((number) => engine().readCached(number, idOf(this), offset, length));
  }
}
