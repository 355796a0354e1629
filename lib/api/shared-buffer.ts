/** `SharedBuffer`: memory that processes read and write, by shm_open(3) or memfd_create(2). */
import type { Socket } from 'node:net';

import { engine, requestHandle } from '../runtime/engine.js';
import { checkMode, checkName, nameSource, receive, type SegmentSource, send, unlink } from '../runtime/segment.js';
import { failure, invalid } from '../util/errors.js';
import { checkBytes, unshared } from '../util/options.js';

export interface SharedBufferOptions {
  /** Bytes, 1 or more. They are zeros. */
  size: number;
  /** Who may open it by its name, as for chmod(2). Default `0o600`: this user. */
  mode?: number | undefined;
}

const released = new FinalizationRegistry<number>((token) => engine().release(token));

/**
 * Bytes that several processes and worker_threads read and write. Each read and write is a copy, by pread(2) and pwrite(2) on
 * the memory itself: where somebody makes it shorter, that is `ERR_ZEROSEND_TRUNCATED` and not a signal. Nothing
 * orders what several do at once; for a queue use {@link SharedRing}.
 *
 * With a name (`/dev/shm`) any process of the same user can open it, until {@link SharedBuffer.unlink}; without one it goes to
 * others as a descriptor: by inheritance (`stdio: [0, 1, 2, buffer.fd]` of `spawn`, `open(3)` in the child), as `fd` to
 * a worker_thread, or over a Unix socket ({@link SharedBuffer.send}). Its memory is free when the last who has it open
 * closes it.
 */
export class SharedBuffer {
  /** Its name, with its slash. */
  readonly name: string | undefined;
  /** Bytes. */
  readonly size: number;
  /** Its descriptor, good until it is closed. */
  readonly fd: number;
  readonly #token: number;
  #closed = false;

  private constructor(token: number) {
    const { name, size, fd } = engine().segmentInfo(token);
    this.name = name;
    this.size = size;
    this.fd = fd;
    this.#token = token;
    released.register(this, token, this);
  }

  /** Makes one, with a name or (`null`) without. Rejects with `EEXIST` for a name that is taken, and as shm_open(3). */
  static async create(name: string | null, options: SharedBufferOptions): Promise<SharedBuffer> {
    const { size, mode = 0o600 } = options;
    if (name !== null) checkName(name);
    checkBytes('size', size);
    checkMode(mode);
    const settings = { ...(name === null ? {} : { name }), size, mode };
    const token = await requestHandle((number) => engine().createSegment(number, settings));
    return new SharedBuffer(token as number);
  }

  /** Opens one by its name or by a descriptor, which stays yours. Rejects with `ENOENT`, `EACCES`, `EBADF`. */
  static async open(source: SegmentSource): Promise<SharedBuffer> {
    const named = nameSource(source);
    const token = await requestHandle((number) => engine().openSegment(number, named, false, false));
    return new SharedBuffer(token as number);
  }

  /**
   * Waits for one that {@link SharedBuffer.send} sends. Nobody may read from the socket before: use `pauseOnConnect` on a
   * server, and `pause()` on a client before it is connected. Rejects with `ERR_ZEROSEND_INVALID_ARGUMENT` when bytes come
   * instead, `ERR_ZEROSEND_CLOSED` when the other side closes.
   */
  static async receive(socket: Socket, options: { signal?: AbortSignal | undefined } = {}): Promise<SharedBuffer> {
    const received = await receive(socket, options.signal);
    const token = await requestHandle((number) => engine().openSegment(number, { received }, false, false));
    return new SharedBuffer(token as number);
  }

  /** Removes a name; false when there is none. Who has it open keeps it. See shm_unlink(3). */
  static unlink(name: string): boolean {
    return unlink(name);
  }

  /**
   * A copy of `length` bytes (default: all that follow) from `offset` on. Throws `ERR_ZEROSEND_OUT_OF_RANGE`,
   * `ERR_ZEROSEND_TRUNCATED`.
   */
  read(offset = 0, length = Math.max(0, this.size - offset)): Buffer {
    checkBytes('offset', offset);
    checkBytes('length', length);
    this.#check(offset, length);
    const bytes = Buffer.allocUnsafe(length);
    engine().readShared(this.#open(), offset, bytes);
    return bytes;
  }

  /**
   * Copies bytes to `offset`. Throws `ERR_ZEROSEND_OUT_OF_RANGE`, `EPERM` when it is sealed against writing, `ENOSPC` when
   * there is no memory for it.
   */
  write(bytes: Uint8Array | string, offset = 0): void {
    const given = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    if (!(given instanceof Uint8Array)) throw invalid('bytes', bytes, 'a Uint8Array or a string');
    checkBytes('offset', offset);
    engine().writeShared(this.#open(), offset, unshared(given));
  }

  /**
   * Forbids things for ever, to everybody; see fcntl(2), `F_ADD_SEALS`. Throws `ERR_ZEROSEND_UNSUPPORTED` for memory with a
   * name.
   */
  seal(...what: ('shrink' | 'grow' | 'write')[]): void {
    for (const one of what) {
      if (!['shrink', 'grow', 'write'].includes(one)) throw invalid('seal', one, "'shrink', 'grow' or 'write'");
    }
    engine().sealShared(this.#open(), what.includes('shrink'), what.includes('grow'), what.includes('write'));
  }

  /** Sends it over a Unix socket, after what was written there before; the other side has it by {@link SharedBuffer.receive}. */
  send(socket: Socket): Promise<void> {
    return send(this.#open(), socket);
  }

  /** Removes its name; false when it has none any more. */
  unlink(): boolean {
    return this.name === undefined ? false : unlink(this.name);
  }

  /** Closes it here. Closing it again does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    released.unregister(this);
    engine().release(this.#token);
  }

  #open(): number {
    if (this.#closed) throw failure('ERR_ZEROSEND_CLOSED', 'the shared buffer is closed');
    return this.#token;
  }

  /** Before memory is taken for a length that is none of it. */
  #check(offset: number, length: number): void {
    if (offset + length <= this.size) return;
    throw failure(
      'ERR_ZEROSEND_OUT_OF_RANGE',
      `offset ${offset} and length ${length} exceed the size of ${this.size} bytes`,
    );
  }
}
