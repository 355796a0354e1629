/**
 * The bytes of a response, read piece by piece for a stream. The counterpart of what `crates/core/src/transfer` does for
 * the stream road: `take`, `warm` and `remaining`.
 */
import type { FileHandle } from 'node:fs/promises';

import { failure } from '../util/errors.js';
import { close } from './open-file.js';
import { lengthOf, type Response } from './plan.js';

/** What is read before anybody has asked. */
const READ_SIZE = 64 * 1024;

export class Transfer {
  /** Bytes that have not been taken. */
  remaining: number;
  readonly #handle: FileHandle;
  readonly #parts: Response['body'];
  #size = READ_SIZE;
  #failure: unknown;

  /** Takes over the handle. */
  constructor(handle: FileHandle, body: Response['body']) {
    this.#handle = handle;
    this.#parts = body;
    this.remaining = lengthOf(body);
  }

  /** The next bytes, at most `max`. `null`: they have not been read; call `warm`. Empty: nothing is left. */
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

  /** Reads what is to be taken next. Never rejects: `take` tells of what went wrong. */
  async warm(): Promise<void> {
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

  /** Lets go of the file, after a read that is under way. */
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
