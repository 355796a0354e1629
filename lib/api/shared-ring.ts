/** `SharedRing`: a queue in shared memory, from one writer to one reader, in this process or in another. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { Socket } from 'node:net';

import { engine, requestHandle } from '../runtime/engine.js';
import { NativeHandle } from '../runtime/handle.js';
import { RingReader } from '../runtime/ring-reader.js';
import { RingWriter } from '../runtime/ring-writer.js';
import {
  checkMode,
  checkName,
  receiveSegment,
  type SegmentSource,
  segmentSource,
  sendSegment,
  unlinkSegment,
} from '../runtime/segment.js';
import { aborted, invalid } from '../util/errors.js';
import { checkInteger, parseEnum, unshared } from '../util/options.js';

export interface SharedRingOptions {
  /** Capacity in bytes, rounded up to whole pages, 1 to 2^31. Default 1 MiB. The memory is allocated at once. */
  capacity?: number | undefined;
  /**
   * `'messages'`, the default: each message is read as it was written; at most `capacity` - 4 bytes. `'bytes'`: a stream
   * without boundaries.
   */
  framing?: 'messages' | 'bytes' | undefined;
  /** Permissions of a ring with a name, as for chmod(2). Default `0o600`: this user only. */
  mode?: number | undefined;
  /** As for {@link SharedRing.open}. */
  reuse?: boolean | undefined;
}

export interface OpenRingOptions {
  /**
   * Read into the same memory each time: the result of {@link SharedRing.read} is valid only until the next call. Default
   * false: results stay valid. For messages of more than a few hundred bytes allocating memory costs more than the copy.
   */
  reuse?: boolean | undefined;
  /**
   * Accept a descriptor of memory that is not sealed against shrinking (`F_SEAL_SHRINK`, fcntl(2)). Any process that has the
   * memory open can then end this process with `SIGBUS` by truncating it. Default false: refused.
   */
  trust?: boolean | undefined;
}

/** The target of {@link SharedRing.pipeTo}: a plain `net.Socket`, a descriptor, or the path of a file to create or overwrite. */
export type PipeToTarget = Socket | number | string;

function readTrust({ trust = false }: OpenRingOptions): boolean {
  if (typeof trust !== 'boolean') throw invalid('trust', trust, 'a boolean');
  return trust;
}

/**
 * A queue of messages or bytes between two processes or threads, in memory that both have mapped. While both are busy, bytes
 * pass without a system call. A side that waits sleeps on a futex(2).
 *
 * ```ts
 * const ring = await SharedRing.create('jobs', { capacity: 1 << 20 }); // one process
 * ring.write(JSON.stringify(job));
 *
 * const ring = await SharedRing.open('jobs'); // another
 * for await (const message of ring) handle(message);
 * ```
 *
 * The first process that writes becomes the writer, the first that reads the reader; a second one gets `ERR_ZEROSEND_BUSY`. The
 * death of a side is detected within 250 ms and reported once, with `ERR_ZEROSEND_PEER_DIED`, after everything that it wrote was
 * read; then another process can take its role. Messages that a dead reader had read are lost.
 *
 * A ring without a name is passed to other processes as a descriptor, like a {@link SharedBuffer}, and its size is sealed. A
 * ring with a name can be opened by every process that its `mode` allows, and cannot be sealed: a process that truncates it
 * ends all that have it mapped (`SIGBUS`). Use names only between processes that trust each other. Inconsistent contents are
 * `ERR_ZEROSEND_CORRUPT`.
 */
export class SharedRing {
  /** The name, with a slash at its beginning. */
  readonly name: string | undefined;
  /** Capacity in bytes. */
  readonly capacity: number;
  readonly framing: 'messages' | 'bytes';
  /** The descriptor, open until {@link SharedRing.close}. */
  readonly fd: number;
  readonly #handle: NativeHandle;
  readonly #writer: RingWriter;
  readonly #reader: RingReader;

  private constructor(handle: number, reuse = false) {
    const { name, size, fd, framing } = engine().segmentInfo(handle);
    this.name = name;
    this.capacity = size;
    this.fd = fd;
    this.framing = framing as 'messages' | 'bytes';
    this.#handle = new NativeHandle(handle, 'the ring');
    this.#writer = new RingWriter(this.#handle, this.framing, size);
    this.#reader = new RingReader(this.#handle, this.framing, reuse);
  }

  /**
   * Creates a ring, with a name or, with `null`, without. Rejects with `EEXIST` when the name is in use, and `ENOSPC` when
   * there is not enough memory.
   */
  static async create(name: string | null, options: SharedRingOptions = {}): Promise<SharedRing> {
    const { capacity = 1 << 20, framing = 'messages', mode = 0o600 } = options;
    if (name !== null) checkName(name);
    checkInteger('capacity', capacity, 1, 2 ** 31);
    parseEnum('framing', framing, ['messages', 'bytes']);
    checkMode(mode);
    const settings = { ...(name === null ? {} : { name }), size: capacity, mode, framing };
    const handle = await requestHandle((number) => engine().createSegment(number, settings));
    return new SharedRing(handle, options.reuse);
  }

  /**
   * Opens a ring by its name, or by a descriptor, which stays open. Rejects with `ENOENT`; `EACCES`; `ERR_ZEROSEND_CORRUPT` when
   * the memory is not a ring, or one of another version of zerosend; `ERR_ZEROSEND_INVALID_ARGUMENT` when other processes can
   * truncate it (see `trust`); and `ENOSPC` when there is not enough memory.
   */
  static async open(source: SegmentSource, options: OpenRingOptions = {}): Promise<SharedRing> {
    const segment = segmentSource(source);
    const trust = readTrust(options);
    const handle = await requestHandle((number) => engine().openSegment(number, segment, true, trust));
    return new SharedRing(handle, options.reuse);
  }

  /** Waits for a ring from {@link SharedRing.send}; see {@link SharedBuffer.receive}. */
  static async receive(
    socket: Socket,
    options: OpenRingOptions & { signal?: AbortSignal | undefined } = {},
  ): Promise<SharedRing> {
    const trust = readTrust(options);
    const received = await receiveSegment(socket, options.signal);
    const handle = await requestHandle((number) => engine().openSegment(number, { received }, true, trust));
    return new SharedRing(handle, options.reuse);
  }

  /** Removes a name; false when it does not exist. Processes that have the ring open keep it. See shm_unlink(3). */
  static unlink(name: string): boolean {
    return unlinkSegment(name);
  }

  /**
   * Writes a message, or bytes. They are copied. Small writes are collected, and passed on at the end of the current turn of
   * the event loop. True: they fit. False: they are queued in this process; as with streams, wait for
   * {@link SharedRing.drained} before writing more.
   *
   * Throws `ERR_ZEROSEND_OUT_OF_RANGE` when a message is too large, `ERR_ZEROSEND_CLOSED` when the reader has closed the ring
   * or this side has ended it, `ERR_ZEROSEND_BUSY`, and `ERR_ZEROSEND_CORRUPT`, also when an earlier write has failed. Throws
   * `ERR_ZEROSEND_PEER_DIED` once when the reader has died and the ring is full: the next reader gets what was written.
   */
  write(bytes: Uint8Array | string): boolean {
    const message = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    if (!(message instanceof Uint8Array)) throw invalid('bytes', bytes, 'a Uint8Array or a string');
    return this.#writer.write(unshared(message));
  }

  /** Resolves when all writes are in the ring. Rejects as {@link SharedRing.write} throws. */
  async drained(): Promise<void> {
    await this.#writer.drained();
  }

  /** Ends the ring: the reader reads what was written, and then the end. No process can write afterwards. */
  async end(): Promise<void> {
    await this.#writer.end();
  }

  /**
   * The next message, or the available bytes (at most 64 KiB). `null`: there are none at present or, when
   * {@link SharedRing.ended} is true, no more will come. Several messages may share memory, like small Buffers of Node; see
   * also `reuse`.
   *
   * Throws `ERR_ZEROSEND_BUSY` when another process reads the ring, and `ERR_ZEROSEND_CORRUPT`.
   */
  read(): Buffer | null {
    return this.#reader.read();
  }

  /** Whether the writer has ended the ring and everything was read. */
  get ended(): boolean {
    return this.#reader.ended;
  }

  /**
   * Waits until {@link SharedRing.read} returns something, and resolves with true; or with false when the writer has ended the
   * ring and everything was read. Rejects with `ERR_ZEROSEND_PEER_DIED` when the writer has died before it ended the ring, and
   * with `ERR_ZEROSEND_CLOSED` when this side is closed.
   */
  async readable(): Promise<boolean> {
    return await this.#reader.readable();
  }

  /** Iterates over the messages or the chunks of the stream until the end; throws as {@link SharedRing.readable} rejects. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Buffer> {
    const next = async (): Promise<IteratorResult<Buffer>> => {
      for (;;) {
        const message = this.read();
        if (message !== null) return { value: message, done: false };
        if (!(await this.readable())) return { value: undefined, done: true };
      }
    };
    const iterator: AsyncIterableIterator<Buffer> = {
      next,
      return: () => Promise.resolve({ value: undefined, done: true }),
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  }

  /**
   * Sends the contents, without the boundaries of messages, to a socket or file until the ring ends. A separate thread calls
   * sendmsg(2) or writev(2) with the memory of the ring. Resolves with the number of bytes. The socket stays open.
   *
   * Rejects as {@link SharedRing.readable}, with the errors of the target (such as `EPIPE`), and with `ABORT_ERR`; `error.bytes`
   * is the number of bytes sent.
   */
  async pipeTo(target: PipeToTarget, options: { signal?: AbortSignal | undefined } = {}): Promise<number> {
    const { signal } = options;
    if (signal?.aborted) throw aborted(signal);
    if (!(target instanceof Socket) && typeof target !== 'number' && typeof target !== 'string') {
      throw invalid('target', target, 'a net.Socket, a descriptor or a path');
    }
    return await this.#reader.exclusively(async (id) => {
      if (typeof target !== 'string') return await this.#reader.pipeTo(id, target, signal);
      // With O_NONBLOCK opening a FIFO without a reader fails with ENXIO instead of blocking a thread of libuv.
      const { O_WRONLY, O_CREAT, O_TRUNC, O_NONBLOCK, O_NOCTTY } = constants;
      const file = await open(target, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY, 0o666);
      try {
        return await this.#reader.pipeTo(id, file.fd, signal);
      } finally {
        await file.close();
      }
    });
  }

  /** Sends the ring over a Unix socket, after all bytes written to the socket; see {@link SharedRing.receive}. */
  send(socket: Socket): Promise<void> {
    return sendSegment(this.#handle.id, socket);
  }

  /** Removes the name; false when it does not exist any more. */
  unlink(): boolean {
    return this.name === undefined ? false : unlinkSegment(this.name);
  }

  /**
   * Gives up the roles of this side, and discards queued writes. Closing a reader makes later writes fail. Closing a writer that
   * has not ended the ring counts as its death, so that the reader does not mistake a part for the whole. Repeated calls do
   * nothing.
   */
  close(): void {
    this.#handle.close();
  }
}
