/** The read side of a ring: reads many messages by one call, and sends a ring to a descriptor. */
import type { Socket } from 'node:net';

import { aborted, failure, type ZerosendError } from '../util/errors.js';
import { within } from './bounds.js';
import { engine, request, requestValue } from './engine.js';
import type { NativeHandle } from './handle.js';
import { FRAME, LARGE } from './ring-writer.js';
import { SessionEndpoint } from './session-endpoint.js';

/** Bytes of memory that are allocated at once. Several messages share it. */
const CHUNK = 64 * 1024;

export class RingReader {
  readonly #handle: NativeHandle;
  readonly #hasFrames: boolean;
  readonly #reuse: boolean;
  /** Bytes that were read: those up to `#at` were returned, those up to `#filled` not yet. */
  #chunk = Buffer.alloc(0);
  #at = 0;
  #filled = 0;
  /** The ring has ended, and all its bytes are in the chunk. */
  #over = false;
  #piping = false;

  /** @param reuse whether each read may overwrite what was returned before. */
  constructor(handle: NativeHandle, framing: 'messages' | 'bytes', reuse: boolean) {
    this.#handle = handle;
    this.#hasFrames = framing === 'messages';
    this.#reuse = reuse;
  }

  /** The next message, or the available bytes; `null` when there are none. */
  read(): Buffer | null {
    if (this.#at === this.#filled && !this.#fill()) return null;
    if (!this.#hasFrames) {
      const bytes = this.#chunk.subarray(this.#at, this.#filled);
      this.#at = this.#filled;
      return bytes;
    }
    // The engine has checked the lengths in the ring, but the peer could change them before they were copied.
    const end = this.#at + FRAME <= this.#filled ? this.#at + FRAME + this.#chunk.readUInt32LE(this.#at) : Infinity;
    if (end > this.#filled) {
      this.#filled = this.#at;
      throw failure('ERR_ZEROSEND_CORRUPT', 'the ring was changed while it was read');
    }
    const message = this.#chunk.subarray(this.#at + FRAME, end);
    this.#at = end;
    return message;
  }

  get ended(): boolean {
    return this.#over && this.#at === this.#filled;
  }

  /** Waits until there is something to read: true; or until the end: false. */
  async readable(): Promise<boolean> {
    while (this.#at === this.#filled && !this.#fill()) {
      if (this.#over) return false;
      await request((number) => engine().waitRing(number, this.#handle.id, 'reader', 1));
    }
    return true;
  }

  /** Reads what is available; false when nothing is. */
  #fill(): boolean {
    if (this.#over) return false;
    if (this.#piping) throw failure('ERR_ZEROSEND_BUSY', 'cannot read: pipeTo() is reading the ring');
    const { id } = this.#handle;
    // Without `reuse` the returned messages are parts of the memory before `#filled`.
    if (this.#reuse || this.#chunk.length - this.#filled < LARGE) this.#renew(CHUNK);
    let count = engine().readRing(id, this.#chunk, this.#filled);
    if (count < -1) {
      this.#renew(Math.max(CHUNK, -count));
      count = engine().readRing(id, this.#chunk, this.#filled);
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

  /** Runs `pipe` while no other call reads the ring. */
  async exclusively<T>(pipe: (id: number) => Promise<T>): Promise<T> {
    const { id } = this.#handle;
    if (this.#piping) throw failure('ERR_ZEROSEND_BUSY', 'pipeTo() is already reading the ring');
    if (this.#at < this.#filled) {
      throw failure('ERR_ZEROSEND_BUSY', 'messages that were already read must be taken with read() before pipeTo()');
    }
    this.#piping = true;
    try {
      return await pipe(id);
    } finally {
      this.#piping = false;
    }
  }

  /** Sends the ring to a socket or descriptor until it ends. Resolves with the number of bytes. For {@link exclusively}. */
  async pipeTo(id: number, target: Socket | number, signal: AbortSignal | undefined): Promise<number> {
    const endpoint = new SessionEndpoint('target', target, false, true).suspend();
    let task = 0;
    const cancel = () => engine().cancelPipeRing(task);
    try {
      await within(endpoint.ready(), { signal, reason: '' }, () => {});
      const piped = requestValue<number>((number) => {
        task = engine().pipeRing(number, id, endpoint.handle);
      });
      signal?.addEventListener('abort', cancel, { once: true });
      // It may have been aborted before the task existed.
      if (signal?.aborted) cancel();
      endpoint.onClosed(cancel);
      const bytes = await piped;
      this.#over = true;
      return bytes;
    } catch (error) {
      const { bytes } = error as ZerosendError;
      if (signal?.aborted) throw Object.assign(aborted(signal), { bytes });
      throw endpoint.closed ? Object.assign(endpoint.closedError(), { bytes }) : error;
    } finally {
      signal?.removeEventListener('abort', cancel);
      if (task !== 0) engine().release(task);
      endpoint.release();
    }
  }
}
