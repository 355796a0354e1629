/** The write side of a ring: batches of small writes, and a queue of what does not fit into the ring. */
import { failure, type ZerosendError } from '../util/errors.js';
import { engine, request } from './engine.js';
import type { NativeHandle } from './handle.js';

/** Bytes before each message: its length, little endian. */
export const FRAME = 4;
/** Messages of at least this many bytes are written by a separate call. */
export const LARGE = 4096;
/** Bytes of small writes that are collected before a call. */
const BATCH = 32 * 1024;

export class RingWriter {
  readonly #handle: NativeHandle;
  readonly #capacity: number;
  /** Bytes before each write: 0 in a ring of bytes. */
  readonly #frame: number;
  /** Small writes of this turn of the event loop. */
  #batch = Buffer.alloc(0);
  #batched = 0;
  #flushScheduled = false;
  /** Bytes that did not fit, in order. They come before those of the batch. */
  #queue: Uint8Array[] = [];
  #pumping: Promise<void> | undefined;
  /** The error of an earlier write, thrown by the next call. */
  #failure: unknown;
  #ended = false;
  #endWritten = false;

  constructor(handle: NativeHandle, framing: 'messages' | 'bytes', capacity: number) {
    this.#handle = handle;
    this.#capacity = capacity;
    this.#frame = framing === 'messages' ? FRAME : 0;
  }

  /** Copies a message or bytes. False: the ring is full, and the rest is queued. */
  write(message: Uint8Array): boolean {
    this.#throwFailure();
    if (this.#ended) throw failure('ERR_ZEROSEND_CLOSED', 'cannot write: the ring has ended');
    const { id } = this.#handle;
    const { length } = message;
    if (this.#frame > 0 && length > this.#capacity - FRAME) {
      throw failure(
        'ERR_ZEROSEND_OUT_OF_RANGE',
        `a message of ${length} bytes is too large: the ring takes up to ${this.#capacity - FRAME}; create it with a larger capacity`,
      );
    }
    return length >= LARGE ? this.#writeLarge(id, message) : this.#writeSmall(message);
  }

  #writeLarge(id: number, message: Uint8Array): boolean {
    this.#flush();
    this.#throwFailure();
    let rest = message;
    if (this.#queue.length === 0) {
      if (this.#frame > 0) {
        if (engine().writeRingMessage(id, message)) return true;
      } else {
        const written = engine().writeRing(id, message);
        if (written === message.length) return true;
        rest = message.subarray(written);
      }
    }
    const copy = Buffer.allocUnsafe(this.#frame + rest.length);
    if (this.#frame > 0) copy.writeUInt32LE(rest.length);
    copy.set(rest, this.#frame);
    this.#queue.push(copy);
    this.#pump();
    return false;
  }

  #writeSmall(message: Uint8Array): boolean {
    if (this.#batched + this.#frame + message.length > this.#batch.length) {
      this.#flush();
      this.#throwFailure();
      this.#batch = Buffer.allocUnsafeSlow(BATCH);
    }
    if (this.#frame > 0) this.#batched = this.#batch.writeUInt32LE(message.length, this.#batched);
    this.#batch.set(message, this.#batched);
    this.#batched += message.length;
    if (!this.#flushScheduled) {
      this.#flushScheduled = true;
      queueMicrotask(() => {
        this.#flushScheduled = false;
        this.#flush();
      });
    }
    return this.#queue.length === 0;
  }

  /** Resolves when all writes are in the ring. */
  async drained(): Promise<void> {
    this.#flush();
    if (this.#queue.length > 0) this.#pump();
    await this.#pumping;
    this.#throwFailure();
  }

  /** Ends the ring after all writes. */
  async end(): Promise<void> {
    this.#ended = true;
    await this.drained();
    if (this.#endWritten) return;
    this.#endWritten = true;
    engine().endRing(this.#handle.id);
  }

  /** Writes the batch, and queues what does not fit. */
  #flush(): void {
    if (this.#batched === 0) return;
    const batch = this.#batch.subarray(0, this.#batched);
    this.#batched = 0;
    if (this.#handle.isClosed || this.#failure !== undefined) return;
    try {
      const written = this.#queue.length === 0 ? engine().writeRing(this.#handle.id, batch) : 0;
      if (written === batch.length) return;
      this.#queue.push(batch.subarray(written));
    } catch (error) {
      this.#failure = error;
      return;
    }
    // The queue now has a part of this memory.
    this.#batch = Buffer.alloc(0);
    this.#pump();
  }

  #pump(): void {
    this.#pumping ??= this.#writeQueue().finally(() => {
      this.#pumping = undefined;
    });
  }

  /** Writes the queue whenever the ring has room. */
  async #writeQueue(): Promise<void> {
    try {
      for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
        const written = engine().writeRing(this.#handle.id, first);
        if (written === first.length) {
          this.#queue.shift();
          continue;
        }
        const rest = first.subarray(written);
        this.#queue[0] = rest;
        const wanted = this.#frame === 0 ? 1 : FRAME + Buffer.from(rest.buffer, rest.byteOffset, FRAME).readUInt32LE();
        await request((number) => engine().waitRing(number, this.#handle.id, 'writer', wanted));
      }
    } catch (error) {
      // After the death of a reader another can read the queue.
      if ((error as ZerosendError).code !== 'ERR_ZEROSEND_PEER_DIED') this.#queue = [];
      this.#failure = error;
    }
  }

  /** Throws the error of an earlier write; the death of the reader only once. */
  #throwFailure(): void {
    const error = this.#failure;
    if (error === undefined) return;
    if ((error as ZerosendError).code === 'ERR_ZEROSEND_PEER_DIED') this.#failure = undefined;
    throw error;
  }
}
