/** `SharedBuffer`: memory that several processes read and write, from shm_open(3) or memfd_create(2). */
import type { Socket } from 'node:net';

import { engine, requestHandle } from '../runtime/engine.js';
import { NativeHandle } from '../runtime/handle.js';
import {
  checkMode,
  checkName,
  receiveSegment,
  type SegmentSource,
  segmentSource,
  sendSegment,
  unlinkSegment,
} from '../runtime/segment.js';
import { failure, invalid } from '../util/errors.js';
import { checkBytes, unshared } from '../util/options.js';

export interface SharedBufferOptions {
  /** Size in bytes, at least 1. The bytes are zeros. */
  size: number;
  /** Permissions of a buffer with a name, as for chmod(2). Default `0o600`: this user only. */
  mode?: number | undefined;
}

/**
 * Bytes that several processes and worker_threads read and write. Each read and write is a copy by pread(2) or pwrite(2), so a
 * truncation of the memory is `ERR_ZEROSEND_TRUNCATED` and not a signal. Concurrent accesses are not ordered; for a queue use
 * {@link SharedRing}.
 *
 * A buffer with a name (`/dev/shm`) can be opened by every process that its `mode` allows, until {@link SharedBuffer.unlink}. A
 * buffer without a name is passed to other processes as a descriptor: by inheritance (`stdio: [0, 1, 2, buffer.fd]` of `spawn`,
 * `SharedBuffer.open(3)` in the child), as `fd` to a worker_thread, or over a Unix socket ({@link SharedBuffer.send}). The
 * memory is freed when the last process closes it.
 */
export class SharedBuffer {
  /** The name, with a slash at its beginning. */
  readonly name: string | undefined;
  /** Size in bytes. */
  readonly size: number;
  /** The descriptor, open until {@link SharedBuffer.close}. */
  readonly fd: number;
  readonly #handle: NativeHandle;

  private constructor(handle: number) {
    const { name, size, fd } = engine().segmentInfo(handle);
    this.name = name;
    this.size = size;
    this.fd = fd;
    this.#handle = new NativeHandle(handle, 'the shared buffer');
  }

  /**
   * Creates a buffer, with a name or, with `null`, without. Rejects with `EEXIST` when the name is in use, and with the errors
   * of shm_open(3).
   */
  static async create(name: string | null, options: SharedBufferOptions): Promise<SharedBuffer> {
    const { size, mode = 0o600 } = options;
    if (name !== null) checkName(name);
    checkBytes('size', size);
    checkMode(mode);
    const settings = { ...(name === null ? {} : { name }), size, mode };
    const handle = await requestHandle((number) => engine().createSegment(number, settings));
    return new SharedBuffer(handle);
  }

  /** Opens a buffer by its name, or by a descriptor, which stays open. Rejects with `ENOENT`, `EACCES`, `EBADF`. */
  static async open(source: SegmentSource): Promise<SharedBuffer> {
    const segment = segmentSource(source);
    const handle = await requestHandle((number) => engine().openSegment(number, segment, false, false));
    return new SharedBuffer(handle);
  }

  /**
   * Waits for a buffer from {@link SharedBuffer.send}. Nothing may read from the socket before: use `pauseOnConnect` on a
   * server, and `pause()` on a client before it connects. Rejects with `ERR_ZEROSEND_INVALID_ARGUMENT` when other data arrives,
   * and with `ERR_ZEROSEND_CLOSED` when the other side closes the connection.
   */
  static async receive(socket: Socket, options: { signal?: AbortSignal | undefined } = {}): Promise<SharedBuffer> {
    const received = await receiveSegment(socket, options.signal);
    const handle = await requestHandle((number) => engine().openSegment(number, { received }, false, false));
    return new SharedBuffer(handle);
  }

  /** Removes a name; false when it does not exist. Processes that have the buffer open keep it. See shm_unlink(3). */
  static unlink(name: string): boolean {
    return unlinkSegment(name);
  }

  /**
   * A copy of `length` bytes (default: all up to the end) from `offset` (default 0) on. Throws `ERR_ZEROSEND_OUT_OF_RANGE`,
   * `ERR_ZEROSEND_TRUNCATED`.
   */
  read(offset = 0, length = Math.max(0, this.size - offset)): Buffer {
    checkBytes('offset', offset);
    checkBytes('length', length);
    // Before the allocation of `length` bytes.
    if (offset + length > this.size) {
      const message = `offset ${offset} and length ${length} exceed the size of ${this.size} bytes`;
      throw failure('ERR_ZEROSEND_OUT_OF_RANGE', message);
    }
    const bytes = Buffer.allocUnsafe(length);
    engine().readShared(this.#handle.id, offset, bytes);
    return bytes;
  }

  /**
   * Copies `bytes` to `offset` (default 0). Throws `ERR_ZEROSEND_OUT_OF_RANGE`, `EPERM` when the buffer is sealed against
   * writing, and `ENOSPC` when there is not enough memory.
   */
  write(bytes: Uint8Array | string, offset = 0): void {
    const source = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    if (!(source instanceof Uint8Array)) throw invalid('bytes', bytes, 'a Uint8Array or a string');
    checkBytes('offset', offset);
    engine().writeShared(this.#handle.id, offset, unshared(source));
  }

  /**
   * Forbids operations to all processes; this cannot be undone. See fcntl(2), `F_ADD_SEALS`. Throws `ERR_ZEROSEND_UNSUPPORTED`
   * for a buffer with a name.
   */
  seal(...seals: ('shrink' | 'grow' | 'write')[]): void {
    for (const seal of seals) {
      if (!['shrink', 'grow', 'write'].includes(seal)) throw invalid('seal', seal, "'shrink', 'grow' or 'write'");
    }
    const { id } = this.#handle;
    engine().sealShared(id, seals.includes('shrink'), seals.includes('grow'), seals.includes('write'));
  }

  /** Sends the buffer over a Unix socket, after all bytes written to the socket; see {@link SharedBuffer.receive}. */
  send(socket: Socket): Promise<void> {
    return sendSegment(this.#handle.id, socket);
  }

  /** Removes the name; false when it does not exist any more. */
  unlink(): boolean {
    return this.name === undefined ? false : unlinkSegment(this.name);
  }

  /** Closes the buffer in this process. Repeated calls do nothing. */
  close(): void {
    this.#handle.close();
  }
}
