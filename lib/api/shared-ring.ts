/** `SharedRing`: a queue in shared memory, from one writer to one reader, in this process or in another. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { Socket } from 'node:net';

import { within } from '../runtime/bounds.js';
import { engine, request, requestHandle, requestValue } from '../runtime/engine.js';
import { checkMode, checkName, nameSource, receive, type SegmentSource, send, unlink } from '../runtime/segment.js';
import { SessionEndpoint } from '../runtime/session-endpoint.js';
import { aborted, failure, invalid, type ZerosendError } from '../util/errors.js';
import { checkInteger, parseEnum, unshared } from '../util/options.js';

export interface SharedRingOptions {
  /** Bytes that it holds, rounded up to whole pages, 1 to 2^31. Default 1 MiB. The memory is taken at once. */
  capacity?: number | undefined;
  /**
   * What passes: `'messages'`, the default, each of which is read as it was written, 4 bytes less than `capacity` at most; or
   * `'bytes'`, a stream without bounds.
   */
  framing?: 'messages' | 'bytes' | undefined;
  /** Who may open it by its name, as for chmod(2). Default `0o600`: this user. */
  mode?: number | undefined;
  /** As of {@link SharedRing.open}. */
  reuse?: boolean | undefined;
}

export interface OpenRingOptions {
  /**
   * Read into the same memory again and again: what {@link SharedRing.read} gives is good only until the next call of it. Default
   * false: it is yours. Fresh memory costs more than the message itself from some hundred bytes on.
   */
  reuse?: boolean | undefined;
  /**
   * Accept a descriptor of memory that is not sealed against shrinking (`F_SEAL_SHRINK`, fcntl(2)). Any process that has it open
   * can then kill this one with `SIGBUS` by truncating it. Default false: refused.
   */
  trust?: boolean | undefined;
}

/** Where {@link SharedRing.pipeTo} sends a ring: a plain `net.Socket`, a descriptor, or the path of a file, which is made or emptied. */
export type PipeToTarget = Socket | number | string;

/** Bytes before each message: its length, little endian. */
const FRAME = 4;
/** Bytes that are put together before they are written: small writes cost no call each. */
const STAGE = 32 * 1024;
/** Messages from here on are written by a call of their own instead of being put together. */
const LARGE = 4096;
/** Bytes that are read at once. Several messages share such a piece of memory. */
const CHUNK = 64 * 1024;

function readTrust({ trust = false }: OpenRingOptions): boolean {
  if (typeof trust !== 'boolean') throw invalid('trust', trust, 'a boolean');
  return trust;
}

const released = new FinalizationRegistry<number>((token) => engine().release(token));

/**
 * A queue of messages or bytes between two processes, or threads, through memory that both have mapped. While both are busy
 * bytes pass without a system call; who waits sleeps on a futex(2).
 *
 * ```ts
 * const ring = await SharedRing.create('jobs', { capacity: 1 << 20 }); // one process
 * ring.write(JSON.stringify(job));
 *
 * const ring = await SharedRing.open('jobs'); // another
 * for await (const message of ring) handle(message);
 * ```
 *
 * The first who writes is its writer, the first who reads its reader, and there is one of each: a second fails with
 * `ERR_ZEROSEND_BUSY`. One that dies is noticed within a quarter of a second and reported, once, with `ERR_ZEROSEND_PEER_DIED`, after
 * all that it had written was read; then another may take its place. A message that a reader had got and not yet handled is
 * lost with it.
 *
 * Without a name it goes to others as a descriptor, as {@link SharedBuffer} does, and is sealed: its size cannot change. With a
 * name it can be opened by any process that its `mode` allows, and the kernel has no seals for names: a process that truncates
 * it kills those that have it mapped (`SIGBUS`). Use names only between processes that trust each other. Contents that contradict each other are `ERR_ZEROSEND_CORRUPT`.
 */
export class SharedRing {
  /** Its name, with its slash. */
  readonly name: string | undefined;
  /** Bytes that it holds. */
  readonly capacity: number;
  readonly framing: 'messages' | 'bytes';
  /** Its descriptor, good until it is closed. */
  readonly fd: number;
  readonly #token: number;
  #closed = false;

  /** What was written and is not in the ring yet: put together, and behind that what did not fit. */
  #stage = Buffer.alloc(0);
  #staged = 0;
  #flushing = false;
  #queue: Uint8Array[] = [];
  #pumping: Promise<void> | undefined;
  #failure: unknown;
  #ended = false;
  /** The ring itself says so. */
  #endWritten = false;

  /** What was read and is not taken yet. */
  #chunk = Buffer.alloc(0);
  #at = 0;
  #filled = 0;
  #over = false;
  #piping = false;
  readonly #reuse: boolean;

  private constructor(token: number, reuse = false) {
    const { name, size, fd, framing } = engine().segmentInfo(token);
    this.name = name;
    this.capacity = size;
    this.fd = fd;
    this.framing = framing as 'messages' | 'bytes';
    this.#token = token;
    this.#reuse = reuse;
    released.register(this, token, this);
  }

  /**
   * Makes one, with a name or (`null`) without. Rejects with `EEXIST` for a name that is taken, `ENOSPC` when there is no
   * memory for it.
   */
  static async create(name: string | null, options: SharedRingOptions = {}): Promise<SharedRing> {
    const { capacity = 1 << 20, framing = 'messages', mode = 0o600 } = options;
    if (name !== null) checkName(name);
    checkInteger('capacity', capacity, 1, 2 ** 31);
    parseEnum('framing', framing, ['messages', 'bytes']);
    checkMode(mode);
    const settings = { ...(name === null ? {} : { name }), size: capacity, mode, framing };
    const token = await requestHandle((number) => engine().createSegment(number, settings));
    return new SharedRing(token as number, options.reuse);
  }

  /**
   * Opens one by its name or by a descriptor, which stays yours. Rejects with `ENOENT`, `EACCES`, `ERR_ZEROSEND_CORRUPT` for what
   * is no ring, or one of another version of zerosend, `ERR_ZEROSEND_INVALID_ARGUMENT` for a descriptor of memory that can be
   * truncated (see `trust`), and `ENOSPC` when there is no memory for all of it.
   */
  static async open(source: SegmentSource, options: OpenRingOptions = {}): Promise<SharedRing> {
    const named = nameSource(source);
    const trust = readTrust(options);
    const token = await requestHandle((number) => engine().openSegment(number, named, true, trust));
    return new SharedRing(token as number, options.reuse);
  }

  /** Waits for one that {@link SharedRing.send} sends; see {@link SharedBuffer.receive}. */
  static async receive(
    socket: Socket,
    options: OpenRingOptions & { signal?: AbortSignal | undefined } = {},
  ): Promise<SharedRing> {
    const trust = readTrust(options);
    const received = await receive(socket, options.signal);
    const token = await requestHandle((number) => engine().openSegment(number, { received }, true, trust));
    return new SharedRing(token as number, options.reuse);
  }

  /** Removes a name; false when there is none. Who has it open keeps it. See shm_unlink(3). */
  static unlink(name: string): boolean {
    return unlink(name);
  }

  /**
   * Writes a message, or bytes. They are copied; small ones are put together and passed on at the end of this turn of the
   * event loop. True: there was room. False: they wait in this process until there is; wait for {@link SharedRing.drained}
   * before you write more, as with streams.
   *
   * Throws `ERR_ZEROSEND_OUT_OF_RANGE` for a message that is too large, `ERR_ZEROSEND_CLOSED` when the reader has closed or this side
   * has ended, `ERR_ZEROSEND_BUSY`, `ERR_ZEROSEND_CORRUPT`: also for what earlier writes met. And once, when the reader has died and
   * the ring is full, `ERR_ZEROSEND_PEER_DIED`: what was written before still waits for a reader that takes its place.
   */
  write(bytes: Uint8Array | string): boolean {
    const given = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    if (!(given instanceof Uint8Array)) throw invalid('bytes', bytes, 'a Uint8Array or a string');
    const message = unshared(given);
    this.#report();
    if (this.#ended) throw failure('ERR_ZEROSEND_CLOSED', 'the ring was ended; nothing can be written after that');
    const token = this.#open();
    const frame = this.framing === 'messages' ? FRAME : 0;
    const { length } = message;
    if (frame > 0 && length > this.capacity - FRAME) {
      throw failure(
        'ERR_ZEROSEND_OUT_OF_RANGE',
        `a message of ${length} bytes is too large: the ring takes ${this.capacity - FRAME} at most; make it with a larger capacity`,
      );
    }
    if (length >= LARGE) {
      this.#flush();
      this.#report();
      if (this.#queue.length === 0) {
        if (frame > 0) {
          if (engine().writeRingMessage(token, message)) return true;
        } else {
          const written = engine().writeRing(token, message);
          if (written === length) return true;
          this.#queue.push(Buffer.from(message.subarray(written)));
          this.#pump();
          return false;
        }
      }
      const copy = Buffer.allocUnsafe(frame + length);
      if (frame > 0) copy.writeUInt32LE(length);
      copy.set(message, frame);
      this.#queue.push(copy);
      this.#pump();
      return false;
    }
    if (this.#staged + frame + length > this.#stage.length) {
      this.#flush();
      this.#report();
      this.#stage = Buffer.allocUnsafeSlow(STAGE);
    }
    if (frame > 0) {
      this.#stage.writeUInt32LE(length, this.#staged);
      this.#staged += FRAME;
    }
    this.#stage.set(message, this.#staged);
    this.#staged += length;
    if (!this.#flushing) {
      this.#flushing = true;
      queueMicrotask(() => {
        this.#flushing = false;
        this.#flush();
      });
    }
    return this.#queue.length === 0;
  }

  /** Resolves when all that was written is in the ring. Rejects as {@link SharedRing.write} throws. */
  async drained(): Promise<void> {
    this.#flush();
    if (this.#queue.length > 0) this.#pump();
    await this.#pumping;
    this.#report();
  }

  /** Ends it: the reader gets what was written, and then the end. Nobody can write after that. */
  async end(): Promise<void> {
    this.#ended = true;
    await this.drained();
    if (this.#endWritten) return;
    this.#endWritten = true;
    engine().endRing(this.#open());
  }

  /**
   * The next message, or the bytes that are there (64 KiB at most); `null` when there is nothing, now or, as {@link SharedRing.ended}
   * says, ever. Several messages may be slices of the same memory, as with Node's own small Buffers; see also `reuse`.
   *
   * Throws `ERR_ZEROSEND_BUSY` when somebody else reads it, `ERR_ZEROSEND_CORRUPT`.
   */
  read(): Buffer | null {
    if (this.#at === this.#filled && !this.#fill()) return null;
    if (this.framing === 'bytes') {
      const bytes = this.#chunk.subarray(this.#at, this.#filled);
      this.#at = this.#filled;
      return bytes;
    }
    // The writer's memory was checked by the engine, and this is a copy: it could have changed in between.
    const end = this.#at + FRAME <= this.#filled ? this.#at + FRAME + this.#chunk.readUInt32LE(this.#at) : Infinity;
    if (end > this.#filled) {
      this.#filled = this.#at;
      throw failure('ERR_ZEROSEND_CORRUPT', 'the ring was changed while it was read');
    }
    const message = this.#chunk.subarray(this.#at + FRAME, end);
    this.#at = end;
    return message;
  }

  /** All was read, and there is no more to come. */
  get ended(): boolean {
    return this.#over && this.#at === this.#filled;
  }

  /**
   * Waits until {@link SharedRing.read} has something: true; or the writer has ended and all was read: false. Rejects with
   * `ERR_ZEROSEND_PEER_DIED` when the writer died before it ended, and with `ERR_ZEROSEND_CLOSED` when this side is closed
   * meanwhile.
   */
  async readable(): Promise<boolean> {
    while (this.#at === this.#filled && !this.#fill()) {
      if (this.#over) return false;
      await request((number) => engine().waitRing(number, this.#open(), 'reader', 1));
    }
    return true;
  }

  /** Messages, or pieces of the stream, until it ends; throws as {@link SharedRing.readable}. */
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
   * Sends all that comes out of it, of messages what is in them, to a socket or file until it ends, on a thread of its own: by
   * sendmsg(2) or writev(2) from the ring's own memory. Resolves with the number of bytes. The socket stays open.
   *
   * (Not by vmsplice(2): a socket would read those pages until its peer has acknowledged them, and the writer would write over
   * them before.)
   *
   * Rejects as {@link SharedRing.readable}, with `EPIPE` and the like of the target, and with `ABORT_ERR`: `error.bytes` says how
   * many bytes had gone.
   */
  async pipeTo(target: PipeToTarget, options: { signal?: AbortSignal | undefined } = {}): Promise<number> {
    const { signal } = options;
    if (signal?.aborted) throw aborted(signal);
    this.#open();
    if (this.#piping) throw failure('ERR_ZEROSEND_BUSY', 'the ring is already piped to a target');
    if (this.#at < this.#filled) {
      throw failure('ERR_ZEROSEND_BUSY', 'read() has messages of the ring that were not taken yet; take them first');
    }
    if (!(target instanceof Socket) && typeof target !== 'number' && typeof target !== 'string') {
      throw invalid('target', target, 'a net.Socket, a descriptor or a path');
    }
    this.#piping = true;
    try {
      if (typeof target !== 'string') return await this.#pipeInto(target, signal);
      // O_NONBLOCK: a FIFO without a reader is ENXIO, instead of a thread of libuv that waits for one.
      const { O_WRONLY, O_CREAT, O_TRUNC, O_NONBLOCK, O_NOCTTY } = constants;
      const file = await open(target, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY, 0o666);
      try {
        return await this.#pipeInto(file.fd, signal);
      } finally {
        await file.close();
      }
    } finally {
      this.#piping = false;
    }
  }

  /** Sends it over a Unix socket, after what was written there before. */
  send(socket: Socket): Promise<void> {
    return send(this.#open(), socket);
  }

  /** Removes its name; false when it has none any more. */
  unlink(): boolean {
    return this.name === undefined ? false : unlink(this.name);
  }

  /**
   * Leaves. Of a reader: the writer is told. Of a writer that has not ended: the reader takes it for dead, so that it takes no
   * part for the whole. What waits in this process is lost. Closing it again does nothing.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    released.unregister(this);
    engine().release(this.#token);
  }

  #open(): number {
    if (this.#closed) throw failure('ERR_ZEROSEND_CLOSED', 'the ring is closed');
    return this.#token;
  }

  async #pipeInto(target: Socket | number, signal: AbortSignal | undefined): Promise<number> {
    const end = new SessionEndpoint('target', target, false, true).suspend();
    let task = 0;
    const cancel = () => engine().cancelPipeRing(task);
    try {
      await within(end.ready(), { signal, reason: '' }, () => {});
      const piped = requestValue<number>((number) => {
        task = engine().pipeRing(number, this.#open(), end.token);
      });
      signal?.addEventListener('abort', cancel, { once: true });
      // It may have been aborted before there was anything to cancel.
      if (signal?.aborted) cancel();
      end.onClosed(cancel);
      const bytes = await piped;
      this.#over = true;
      return bytes;
    } catch (error) {
      const { bytes } = error as ZerosendError;
      if (signal?.aborted) throw Object.assign(aborted(signal), { bytes });
      throw end.closed ? Object.assign(end.closedError(), { bytes }) : error;
    } finally {
      signal?.removeEventListener('abort', cancel);
      if (task !== 0) engine().release(task);
      end.release();
    }
  }

  /** Passes on what was put together; what does not fit goes to the queue. Keeps an error for those who ask next. */
  #flush(): void {
    if (this.#staged === 0) return;
    const staged = this.#stage.subarray(0, this.#staged);
    this.#staged = 0;
    if (this.#closed || this.#failure !== undefined) return;
    try {
      const written = this.#queue.length === 0 ? engine().writeRing(this.#token, staged) : 0;
      if (written === staged.length) return;
      this.#queue.push(staged.subarray(written));
    } catch (error) {
      this.#failure = error;
      return;
    }
    // The rest is written from there.
    this.#stage = Buffer.alloc(0);
    this.#pump();
  }

  /** Writes the queue as there is room. */
  #pump(): void {
    this.#pumping ??= this.#drainQueue().finally(() => {
      this.#pumping = undefined;
    });
  }

  async #drainQueue(): Promise<void> {
    try {
      for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
        const written = engine().writeRing(this.#open(), first);
        if (written === first.length) {
          this.#queue.shift();
          continue;
        }
        const rest = first.subarray(written);
        this.#queue[0] = rest;
        const wanted =
          this.framing === 'bytes' ? 1 : FRAME + Buffer.from(rest.buffer, rest.byteOffset, FRAME).readUInt32LE();
        await request((number) => engine().waitRing(number, this.#open(), 'writer', wanted));
      }
    } catch (error) {
      // What waits for a reader that has died may be for the one that takes its place.
      if ((error as ZerosendError).code !== 'ERR_ZEROSEND_PEER_DIED') this.#queue = [];
      this.#failure = error;
    }
  }

  /** Throws what writing has met; a death once. */
  #report(): void {
    const error = this.#failure;
    if (error === undefined) return;
    if ((error as ZerosendError).code === 'ERR_ZEROSEND_PEER_DIED') this.#failure = undefined;
    throw error;
  }

  /** Reads what is there; false when that is nothing. */
  #fill(): boolean {
    if (this.#over) return false;
    if (this.#piping)
      throw failure('ERR_ZEROSEND_BUSY', 'the ring is piped to a target; read() is not possible meanwhile');
    const token = this.#open();
    // What was read is never written over, unless that was wished: others have slices of it.
    if (this.#reuse || this.#chunk.length - this.#filled < LARGE) this.#renew(CHUNK);
    let count = engine().readRing(token, this.#chunk, this.#filled);
    if (count < -1) {
      this.#renew(Math.max(CHUNK, -count));
      count = engine().readRing(token, this.#chunk, this.#filled);
    }
    if (count === -1) this.#over = true;
    if (count <= 0) return false;
    this.#filled += count;
    return true;
  }

  #renew(bytes: number): void {
    if (!this.#reuse || this.#chunk.length < bytes) this.#chunk = Buffer.allocUnsafeSlow(bytes);
    this.#at = 0;
    this.#filled = 0;
  }
}
