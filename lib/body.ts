/** A file as a response body: a `Readable` for everybody, and past JavaScript where nothing stands between. */
import type { ServerResponse } from 'node:http';
import { Readable } from 'node:stream';

import { engine, forget, request } from './engine.js';
import type { ZerosendError } from './errors.js';
import { sendBody } from './response.js';

/** Bytes read at once on the stream road. */
const READ_SIZE = 64 * 1024;

// A body that nobody reads and nobody destroys must not keep its file open for ever.
const forgotten = new FinalizationRegistry<number>((token) => engine().release(token));

/**
 * The bytes of a transfer as a stream.
 *
 * `pipe(res)` takes the zero-copy road when `res` is a plain `http.ServerResponse` on a plain socket and nobody has begun
 * to read; everywhere else (TLS, HTTP/2, `inject()`, a compressor) this is an ordinary file stream.
 */
export class FileBody extends Readable {
  /** The file, for hooks that look at it. */
  readonly path: string;
  /** Which road the bytes took, once they are on it. */
  road: 'zero-copy' | 'stream' | undefined;
  readonly #length: number;
  #token: number;
  #reading = 0;

  /** @param token a transfer of exactly `length` bytes, owned by the body from now on; 0 for an empty body. */
  constructor(token: number, length: number, path: string) {
    super({ highWaterMark: READ_SIZE });
    this.path = path;
    this.#token = token;
    this.#length = length;
    if (token !== 0) forgotten.register(this, token, this);
  }

  override pipe<T extends NodeJS.WritableStream>(destination: T, options?: { end?: boolean }): T {
    const untouched = this.readableFlowing === null && !this.readableDidRead && !this.destroyed && this.#reading === 0;
    if (
      untouched &&
      this.#token !== 0 &&
      options?.end !== false &&
      sendBody(destination as unknown as ServerResponse, this.#token, this.#length, (error) => this.#sent(error))
    ) {
      this.road = 'zero-copy';
      return destination;
    }
    return super.pipe(destination, options);
  }

  override _read(): void {
    this.road ??= 'stream';
    this.#next();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    if (this.#reading !== 0) forget(this.#reading);
    this.#release();
    callback(error);
  }

  #next(): void {
    if (this.#token === 0) {
      this.push(null);
      return;
    }
    try {
      const bytes = engine().take(this.#token, READ_SIZE);
      if (bytes === null) {
        this.#reading = request(() => {
          this.#reading = 0;
          this.#next();
        });
        engine().warm(this.#token, this.#reading);
      } else {
        const left = engine().remaining(this.#token);
        this.push(bytes.length > 0 ? bytes : null);
        if (left === 0 && bytes.length > 0) this.push(null);
      }
    } catch (error) {
      this.destroy(error as ZerosendError);
    }
  }

  /** The zero-copy road has ended: let those who watch the stream see it end. */
  #sent(error: ZerosendError | undefined): void {
    this.#token = 0;
    forgotten.unregister(this);
    if (error !== undefined) {
      this.destroy(error);
    } else {
      this.push(null);
      this.resume();
    }
  }

  #release(): void {
    if (this.#token === 0) return;
    forgotten.unregister(this);
    if (this.road !== 'zero-copy') engine().release(this.#token);
    this.#token = 0;
  }
}
