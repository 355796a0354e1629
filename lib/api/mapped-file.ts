/** `MappedFile`: a file in memory, by mmap(2). */
import type { MapSettings } from '#native';
import { engine, request, requestHandle, requestValue } from '../runtime/engine.js';
import { NativeHandle } from '../runtime/handle.js';
import { invalid } from '../util/errors.js';
import { checkBytes, unshared } from '../util/options.js';
import { resolveFile } from '../util/path.js';

export interface MappedFileOptions {
  /**
   * The visibility of writes. `'read'`, the default: the mapping is read-only. `'private'`: only in this mapping; written pages
   * are copied and never reach the file. `'shared'`: in the file at once, and on the disk after {@link MappedFile.flush}.
   */
  mode?: 'read' | 'private' | 'shared' | undefined;
  /**
   * Bytes from the beginning of the file. Default: all. With `'shared'` a missing file is created, and a shorter file extended, to
   * this length.
   */
  length?: number | undefined;
  /** Read all of it into memory at once; see mmap(2), `MAP_POPULATE`. Default false. */
  populate?: boolean | undefined;
}

/**
 * A mapped file. The kernel copies bytes from and to the mapping, and this process does not access it directly, so a truncation
 * of the file is the error `ERR_ZEROSEND_TRUNCATED` and not a signal.
 *
 * Closed by {@link MappedFile.close}, or when it is garbage collected.
 */
export class MappedFile {
  readonly path: string;
  /** Bytes mapped. */
  readonly size: number;
  readonly mode: 'read' | 'private' | 'shared';
  readonly #handle: NativeHandle;

  private constructor(name: string, handle: number, mode: 'read' | 'private' | 'shared') {
    this.path = name;
    this.mode = mode;
    this.size = engine().mappedSize(handle);
    this.#handle = new NativeHandle(handle, 'the mapped file');
  }

  /**
   * Opens and maps a file. Rejects with the errors of open(2) (`ENOENT`, `EACCES`, ...), `ERR_ZEROSEND_NOT_REGULAR_FILE`,
   * `ERR_ZEROSEND_OUT_OF_RANGE` when `length` exceeds the file (except with mode `'shared'`), and
   * `ERR_ZEROSEND_INVALID_ARGUMENT` when the file is empty.
   */
  static async open(file: string | URL, options: MappedFileOptions = {}): Promise<MappedFile> {
    const { mode = 'read', length, populate = false } = options;
    const name = resolveFile(file);
    if (mode !== 'read' && mode !== 'private' && mode !== 'shared') {
      throw invalid('mode', mode, "'read', 'private' or 'shared'");
    }
    checkBytes('length', length);
    if (typeof populate !== 'boolean') throw invalid('populate', populate, 'a boolean');
    const settings: MapSettings = { mode, populate };
    if (length !== undefined) settings.length = length;
    const handle = await requestHandle((number) => engine().openMapped(number, name, settings));
    return new MappedFile(name, handle, mode);
  }

  /** A copy of `length` bytes (default: all up to the end) from `offset` (default 0) on. */
  async read(offset = 0, length = Math.max(0, this.size - offset)): Promise<Buffer> {
    checkBytes('offset', offset);
    checkBytes('length', length);
    return await requestValue<Buffer>((number) => engine().readMapped(number, this.#handle.id, offset, length));
  }

  /** Writes `bytes`, which are copied during the call, from `offset` on. `ERR_ZEROSEND_INVALID_ARGUMENT` with mode `'read'`. */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    checkBytes('offset', offset);
    if (offset === undefined) throw invalid('offset', offset, 'an integer number of bytes');
    if (!(bytes instanceof Uint8Array)) throw invalid('bytes', bytes, 'a Buffer or Uint8Array');
    await request((number) => engine().writeMapped(number, this.#handle.id, offset, unshared(bytes)));
  }

  /** Writes changed pages to the disk, and waits for it unless `async` is true. See msync(2). */
  async flush(options: { async?: boolean | undefined } = {}): Promise<void> {
    await request((number) => engine().flushMapped(number, this.#handle.id, options.async !== true));
  }

  /**
   * Advises the kernel how the mapping will be accessed; see madvise(2). `'dontneed'` discards writes to a `'private'` mapping.
   * Throws `EINVAL` when the kernel does not know the advice.
   */
  advise(advice: 'sequential' | 'random' | 'willneed' | 'dontneed' | 'hugepage'): void {
    engine().adviseMapped(this.#handle.id, advice);
  }

  /** The number of its pages, and how many of them are in memory; see mincore(2). `pageSize` in bytes. */
  residency(): { pageSize: number; pages: number; resident: number } {
    return engine().mappedResidency(this.#handle.id);
  }

  /** Unmaps and closes the file once running operations have ended. Repeated calls do nothing. */
  close(): void {
    this.#handle.close();
  }
}
