/** A file as a response body: a `Readable` that is sent with zero-copy where possible. */
import { ServerResponse } from 'node:http';
import { Http2ServerResponse } from 'node:http2';
import { Readable } from 'node:stream';

import type { ResponseMethod } from '../types/method.js';
import type { ZerosendError } from '../util/errors.js';
import { abortResponse } from './abort.js';
import { closeRequest, openRequest, staticEngine } from './engine.js';
import { keepHalfOpen } from './half-open.js';
import { sendBody } from './response.js';

/** The default size of reads in bytes. */
const READ_SIZE = 64 * 1024;

// Closes the file of a body that is neither read nor destroyed.
const unreachable = new FinalizationRegistry<number>((transfer) => staticEngine().release(transfer));

export interface FileBodyOptions {
  /** Size of the reads in bytes if the body is sent as a stream. Default 64 KiB. */
  highWaterMark?: number | undefined;
  /** Called once: when all bytes were sent, before the response ends, or when sending was aborted. */
  onSent?: ((method: ResponseMethod, aborted: boolean) => void) | undefined;
}

/**
 * The bytes of a transfer as a stream.
 *
 * `pipe(res)` uses zero-copy if `res` is a plain `http.ServerResponse` on a plain socket and reading has not started. Otherwise (TLS,
 * HTTP/2, `inject()`, a compressor) this is an ordinary file stream.
 */
export class FileBody extends Readable {
  /** The path of the file, for hooks of the application. */
  readonly path: string;
  readonly #options: FileBodyOptions;
  /** Whether the bytes bypass this stream or pass through it; `undefined` before sending starts. */
  #route: 'bypass' | 'stream' | undefined;
  #settled = false;
  readonly #length: number;
  #transfer: number;
  #reading = 0;
  /** The response to which a part may have been written. */
  #response: ServerResponse | undefined;

  /** @param transfer The handle of a transfer of `length` bytes, which the body releases; 0 for an empty body. */
  constructor(transfer: number, length: number, path: string, options: FileBodyOptions = {}) {
    super({ highWaterMark: options.highWaterMark ?? READ_SIZE });
    this.#options = options;
    this.path = path;
    this.#transfer = transfer;
    this.#length = length;
    if (transfer !== 0) unreachable.register(this, transfer, this);
  }

  override pipe<T extends NodeJS.WritableStream>(destination: T, options?: { end?: boolean }): T {
    const untouched = this.readableFlowing === null && !this.readableDidRead && !this.destroyed && this.#reading === 0;
    if (untouched && this.#transfer !== 0 && options?.end !== false) {
      // Before the call: a small file is sent, and the stream has ended, when sendBody returns.
      this.#route = 'bypass';
      const sent = sendBody(destination as unknown as ServerResponse, this.#transfer, this.#length, (error, method) =>
        this.#sent(error, method),
      );
      if (sent) return destination;
      this.#route = undefined;
    }
    if (this.#transfer !== 0 && destination instanceof ServerResponse) {
      this.once('close', keepHalfOpen(destination, 'transfers'));
    }
    if (isResponse(destination)) this.#response = destination;
    return super.pipe(destination, options);
  }

  override _read(): void {
    this.#route ??= 'stream';
    this.#next();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    if (this.#reading !== 0) closeRequest(this.#reading);
    this.#release();
    // If the bytes bypass the stream, `#sent` is called.
    if (this.#route !== 'bypass')
      this.#settle(this.#length === 0 ? 'none' : 'stream', error !== null || !this.readableEnded);
    callback(error);
  }

  #next(): void {
    if (this.#transfer === 0) {
      this.push(null);
      return;
    }
    try {
      const bytes = staticEngine().take(this.#transfer, this.readableHighWaterMark);
      if (bytes === null) {
        this.#reading = openRequest((event) => {
          this.#reading = 0;
          if (event.error !== undefined) this.destroy(event.error);
          else this.#next();
        });
        staticEngine().prefetch(this.#transfer, this.#reading);
      } else {
        const left = staticEngine().remaining(this.#transfer);
        this.push(bytes.length > 0 ? bytes : null);
        if (left === 0 && bytes.length > 0) this.push(null);
      }
    } catch (error) {
      const fail = () => this.destroy(error as ZerosendError);
      // Aborting tells the client that the body is incomplete.
      if (this.#response?.headersSent) abortResponse(this.#response, fail);
      else fail();
    }
  }

  /** The bytes were sent without the stream, or this has failed: ends or destroys the stream. */
  #sent(error: ZerosendError | undefined, method: ResponseMethod | undefined): void {
    this.#transfer = 0;
    unreachable.unregister(this);
    this.#settle(method ?? 'none', error !== undefined);
    if (error !== undefined) {
      this.destroy(error);
    } else {
      this.push(null);
      this.resume();
    }
  }

  #settle(method: ResponseMethod, aborted: boolean): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#options.onSent?.(method, aborted);
  }

  #release(): void {
    if (this.#transfer === 0) return;
    unreachable.unregister(this);
    if (this.#route !== 'bypass') staticEngine().release(this.#transfer);
    this.#transfer = 0;
  }
}

function isResponse(destination: unknown): destination is ServerResponse {
  return destination instanceof ServerResponse || destination instanceof Http2ServerResponse;
}
