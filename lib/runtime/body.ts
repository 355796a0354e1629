/** A file as a response body: a `Readable` for everybody, and past JavaScript where nothing stands between. */
import { ServerResponse } from 'node:http';
import { Http2ServerResponse } from 'node:http2';
import { Readable } from 'node:stream';

import type { ResponseMethod } from '../types/method.js';
import type { ZerosendError } from '../util/errors.js';
import { abortResponse } from './abort.js';
import { closeRequest, openRequest, staticEngine } from './engine.js';
import { keepHalfOpen } from './half-open.js';
import { sendBody } from './response.js';

/** Bytes read at once on the stream method. */
const READ_SIZE = 64 * 1024;

// A body that nobody reads and nobody destroys must not keep its file open for ever.
const forgotten = new FinalizationRegistry<number>((token) => staticEngine().release(token));

export interface FileBodyOptions {
  /** Bytes read at once on the stream method. Default 64 KiB. */
  highWaterMark?: number | undefined;
  /** Told once which method the bytes took, when they are sent (before the response ends) or nothing more will be. */
  onSent?: ((method: ResponseMethod, aborted: boolean) => void) | undefined;
}

/**
 * The bytes of a transfer as a stream.
 *
 * `pipe(res)` takes the zero-copy method when `res` is a plain `http.ServerResponse` on a plain socket and nobody has begun
 * to read; everywhere else (TLS, HTTP/2, `inject()`, a compressor) this is an ordinary file stream.
 */
export class FileBody extends Readable {
  /** The file, for hooks that look at it. */
  readonly path: string;
  readonly #options: FileBodyOptions;
  /** Where the bytes go: past this stream, through it, or not yet anywhere. */
  #way: 'past' | 'through' | undefined;
  #settled = false;
  readonly #length: number;
  #token: number;
  #reading = 0;
  /** The response that a part of it may have been written to. */
  #response: ServerResponse | undefined;

  /** @param token a transfer of exactly `length` bytes, owned by the body from now on; 0 for an empty body. */
  constructor(token: number, length: number, path: string, options: FileBodyOptions = {}) {
    super({ highWaterMark: options.highWaterMark ?? READ_SIZE });
    this.#options = options;
    this.path = path;
    this.#token = token;
    this.#length = length;
    if (token !== 0) forgotten.register(this, token, this);
  }

  override pipe<T extends NodeJS.WritableStream>(destination: T, options?: { end?: boolean }): T {
    const untouched = this.readableFlowing === null && !this.readableDidRead && !this.destroyed && this.#reading === 0;
    if (untouched && this.#token !== 0 && options?.end !== false) {
      // Before it is asked: a small file is sent, and the stream at its end, when sendBody returns.
      this.#way = 'past';
      const sent = sendBody(destination as unknown as ServerResponse, this.#token, this.#length, (error, method) =>
        this.#sent(error, method),
      );
      if (sent) return destination;
      this.#way = undefined;
    }
    // A client that half-closes while the bytes come through here still wants the rest of them.
    if (this.#token !== 0 && destination instanceof ServerResponse) {
      this.once('close', keepHalfOpen(destination, 'transfers'));
    }
    if (isResponse(destination)) this.#response = destination;
    return super.pipe(destination, options);
  }

  override _read(): void {
    this.#way ??= 'through';
    this.#next();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    if (this.#reading !== 0) closeRequest(this.#reading);
    this.#release();
    // On its way past the stream it is the sender who knows.
    if (this.#way !== 'past')
      this.#settle(this.#length === 0 ? 'none' : 'stream', error !== null || !this.readableEnded);
    callback(error);
  }

  #next(): void {
    if (this.#token === 0) {
      this.push(null);
      return;
    }
    try {
      const bytes = staticEngine().take(this.#token, this.readableHighWaterMark);
      if (bytes === null) {
        this.#reading = openRequest((event) => {
          this.#reading = 0;
          if (event.error !== undefined) this.destroy(event.error);
          else this.#next();
        });
        staticEngine().prefetch(this.#token, this.#reading);
      } else {
        const left = staticEngine().remaining(this.#token);
        this.push(bytes.length > 0 ? bytes : null);
        if (left === 0 && bytes.length > 0) this.push(null);
      }
    } catch (error) {
      const fail = () => this.destroy(error as ZerosendError);
      // The client has a part of what was announced: only the end of the connection, or of the stream, tells it so.
      if (this.#response?.headersSent) abortResponse(this.#response, fail);
      else fail();
    }
  }

  /** The zero-copy method has ended: let those who watch the stream see it end. */
  #sent(error: ZerosendError | undefined, method: ResponseMethod | undefined): void {
    this.#token = 0;
    forgotten.unregister(this);
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
    if (this.#token === 0) return;
    forgotten.unregister(this);
    if (this.#way !== 'past') staticEngine().release(this.#token);
    this.#token = 0;
  }
}

function isResponse(destination: unknown): destination is ServerResponse {
  return destination instanceof ServerResponse || destination instanceof Http2ServerResponse;
}
