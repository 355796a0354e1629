/**
 * Reads the bytes of a response in chunks, for a stream. The counterpart of the functions of `crates/core/src/transfer` for
 * streams: `take`, `prefetch` and `remaining`.
 */
import type { FileHandle } from 'node:fs/promises';

import { failure } from '../util/errors.js';
import { close } from './open-file.js';
import { lengthOf, type Response } from './plan.js';

/** Size of the first read in bytes. */
const READ_SIZE = 64 * 1024;

export class Transfer {
  /** Bytes not yet returned by `take`. */
  remaining: number;
  readonly #handle: FileHandle;
  readonly #parts: Response['body'];
  #size = READ_SIZE;
  #failure: unknown;

  /** @param handle Closed by `close`. */
  constructor(handle: FileHandle, body: Response['body']) {
    this.#handle = handle;
    this.#parts = body;
    this.remaining = lengthOf(body);
  }

  /** The next bytes, at most `max`. `null` if they were not read yet: see `prefetch`. Empty at the end. */
  take(max: number): Buffer | null {
    if (this.#failure !== undefined) throw this.#failure;
    this.#size = max;
    const [part] = this.#parts;
    if (part === undefined) return Buffer.alloc(0);
    if (!Buffer.isBuffer(part)) return null;
    const taken = part.subarray(0, max);
    if (taken.length < part.length) this.#parts[0] = part.subarray(max);
    else this.#parts.shift();
    this.remaining -= taken.length;
    return taken;
  }

  /** Reads the bytes for the next `take`, which throws if this fails. */
  async prefetch(): Promise<void> {
    const [part] = this.#parts;
    if (part === undefined || Buffer.isBuffer(part)) return;
    const length = Math.min(part.end - part.start, this.#size);
    try {
      const { bytesRead, buffer } = await this.#handle.read(Buffer.allocUnsafe(length), 0, length, part.start);
      if (bytesRead === 0) throw truncated(this.remaining);
      const rest = { start: part.start + bytesRead, end: part.end };
      this.#parts.splice(0, 1, buffer.subarray(0, bytesRead), ...(rest.start < rest.end ? [rest] : []));
    } catch (error) {
      this.#failure = error;
    }
  }

  /** Closes the file, after a pending read. */
  close(): void {
    close(this.#handle);
  }
}

function truncated(missing: number): Error {
  return failure(
    'ERR_ZEROSEND_TRUNCATED',
    `the file was truncated while it was sent: ${missing} bytes are missing; close the connection`,
  );
}
