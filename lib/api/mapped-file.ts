/** `MappedFile`: a file as memory, by mmap(2). */
import type { MapSettings } from '#native';
import { engine, request, requestHandle, requestValue } from '../runtime/engine.js';
import { failure, invalid } from '../util/errors.js';
import { checkBytes, unshared } from '../util/options.js';
import { resolveFile } from '../util/path.js';

export interface MappedFileOptions {
  /**
   * Who sees what is written. `'read'`, the default: nothing can be. `'private'`: only this mapping; pages are copied when
   * they are written to, and never reach the file. `'shared'`: everybody who has the file, at once; on the disk it is for
   * sure after {@link MappedFile.flush}.
   */
  mode?: 'read' | 'private' | 'shared' | undefined;
  /** Bytes from the beginning of the file. Default: all. With `'shared'` a file that is shorter, or not there, is made so long. */
  length?: number | undefined;
  /** Bring all of it into memory when it is opened; see mmap(2), `MAP_POPULATE`. Default false. */
  populate?: boolean | undefined;
}

const released = new FinalizationRegistry<number>((token) => engine().release(token));

/**
 * A file as memory. Bytes are copied in and out by the kernel, never touched by this process: where a file was truncated
 * underneath, that is an error with the code `ERR_ZEROSEND_TRUNCATED` and not a signal.
 *
 * Closed by {@link MappedFile.close}, or when it is collected.
 */
export class MappedFile {
  readonly path: string;
  /** Bytes mapped. */
  readonly size: number;
  readonly mode: 'read' | 'private' | 'shared';
  readonly #token: number;
  #closed = false;

  private constructor(name: string, token: number, mode: 'read' | 'private' | 'shared') {
    this.path = name;
    this.mode = mode;
    this.#token = token;
    this.size = engine().mappedSize(token);
    released.register(this, token, this);
  }

  /**
   * Opens and maps a file. Rejects as open(2) does (`ENOENT`, `EACCES`, ...), with `ERR_ZEROSEND_NOT_REGULAR_FILE`, with
   * `ERR_ZEROSEND_OUT_OF_RANGE` for a length beyond a file that is not to be grown, and with
   * `ERR_ZEROSEND_INVALID_ARGUMENT` for an empty file.
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

  /** A copy of `length` bytes (default: all that follow) from `offset` (default 0) on. */
  async read(offset = 0, length = Math.max(0, this.size - offset)): Promise<Buffer> {
    checkBytes('offset', offset);
    checkBytes('length', length);
    return await requestValue<Buffer>((number) => engine().readMapped(number, this.#open(), offset, length));
  }

  /** Writes `bytes`, which are copied at the call, from `offset` on. `ERR_ZEROSEND_INVALID_ARGUMENT` with the mode `'read'`. */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    checkBytes('offset', offset);
    if (offset === undefined) throw invalid('offset', offset, 'an integer number of bytes');
    if (!(bytes instanceof Uint8Array)) throw invalid('bytes', bytes, 'a Buffer or Uint8Array');
    await request((number) => engine().writeMapped(number, this.#open(), offset, unshared(bytes)));
  }

  /** Writes changed pages to the disk, and waits for it; with `async` it only begins. See msync(2). */
  async flush(options: { async?: boolean | undefined } = {}): Promise<void> {
    await request((number) => engine().flushMapped(number, this.#open(), options.async !== true));
  }

  /**
   * Tells the kernel how it will be used; see madvise(2). `'dontneed'` forgets what was written to a `'private'` mapping.
   * Throws `EINVAL` for advice that the kernel does not know.
   */
  advise(advice: 'sequential' | 'random' | 'willneed' | 'dontneed' | 'hugepage'): void {
    engine().adviseMapped(this.#open(), advice);
  }

  /** How many of its pages are in memory; see mincore(2). `pageSize` in bytes. */
  residency(): { pageSize: number; pages: number; resident: number } {
    return engine().mappedResidency(this.#open());
  }

  /** Unmaps and closes it; what is under way still ends. Closing it again does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    released.unregister(this);
    engine().release(this.#token);
  }

  #open(): number {
    if (this.#closed) throw failure('ERR_ZEROSEND_CLOSED', 'the mapped file is closed');
    return this.#token;
  }
}
