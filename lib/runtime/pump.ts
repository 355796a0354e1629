/**
 * The pump: brings a transfer to its end on a Node socket, on the JavaScript thread, without a watcher of its own.
 *
 * It sends until the kernel takes no more, then gives Node's own write queue one small piece; the callback of that write
 * says that the socket takes more. So Node's timeouts, its errors and its order of bytes stay true.
 */
import { AsyncResource } from 'node:async_hooks';
import type { Socket } from 'node:net';
import type { TransferReport } from '#native';
import { writeThrough } from '../node/intercept-writes.js';
import { descriptor, hasQueuedBytes } from '../node/node-internals.js';
import { failure, type ZerosendError } from '../util/errors.js';
import { engine, forget, request } from './engine.js';
import { requireNative } from './native.js';
import { later, schedule, spend } from './send-budget.js';

/** What goes through Node's queue to learn when the socket takes more: some 1 % of what it took before. */
const PIECE = 16 * 1024;

export interface PumpOptions {
  /** Bytes a turn sends at most. */
  chunk: number;
  /** Told after each turn that sent something. */
  onProgress?: ((sent: number) => void) | undefined;
  /** Told once. On error the transfer has been released; nothing more will be sent. */
  done: (error: ZerosendError | undefined, report: TransferReport) => void;
}

/** A transfer on its way to a socket that the caller holds. It is released at the end, whatever that is. */
export class Pump {
  readonly #socket: Socket;
  readonly #token: number;
  readonly #options: PumpOptions;
  readonly #onClose = () => this.stop(closed());
  #remaining: number;
  #ended = false;
  #reading = 0;

  constructor(socket: Socket, token: number, options: PumpOptions) {
    this.#socket = socket;
    this.#token = token;
    const { chunk, onProgress, done } = options;
    // Turns run in the context of other transfers: AsyncLocalStorage must see that of the caller.
    this.#options = {
      chunk,
      onProgress: onProgress && AsyncResource.bind(onProgress),
      done: AsyncResource.bind(done),
    };
    this.#remaining = engine().remaining(token);
    socket.once('close', this.#onClose);
  }

  /** Starts, after what Node still has queued for the socket. */
  start(): void {
    if (this.#socket.connecting) {
      this.#socket.once('connect', this.#turn);
    } else if (hasQueuedBytes(this.#socket)) {
      // The callback of an empty write comes after all writes before it.
      writeThrough(this.#socket, '', this.#written);
    } else {
      schedule(this.#turn);
    }
  }

  /** Goes on after a turn that somebody else made. */
  resume(turn: number): void {
    this.#after(turn);
  }

  /** True while the next bytes are read from a file. */
  get waitsForFile(): boolean {
    return this.#reading !== 0;
  }

  /** Ends it at once. */
  stop(error: ZerosendError): void {
    this.#end(error);
  }

  readonly #turn = (): void => {
    if (this.#ended) return;
    if (hasQueuedBytes(this.#socket)) {
      writeThrough(this.#socket, '', this.#written);
      return;
    }
    let turn: number;
    try {
      turn = engine().advance(this.#token, descriptor(this.#socket), this.#options.chunk);
    } catch (error) {
      this.#end(error as ZerosendError);
      return;
    }
    this.#after(turn);
  };

  #after(turn: number): void {
    const { Turn } = requireNative();
    const remaining = engine().remaining(this.#token);
    if (remaining < this.#remaining) {
      spend(this.#remaining - remaining);
      this.#remaining = remaining;
      this.#options.onProgress?.(engine().report(this.#token).bytes);
      if (this.#ended) return;
    }
    if (turn === Turn.Done) this.#end(undefined);
    else if (turn === Turn.Yield) later(this.#turn);
    else if (turn === Turn.Cold) this.#warm(this.#turn);
    else this.#piece();
  }

  readonly #piece = (): void => {
    if (this.#ended) return;
    let piece: Uint8Array | null;
    try {
      piece = engine().take(this.#token, PIECE);
    } catch (error) {
      this.#end(error as ZerosendError);
      return;
    }
    if (piece === null) this.#warm(this.#piece);
    else writeThrough(this.#socket, piece, this.#written);
  };

  readonly #written = (error?: Error | null): void => {
    if (this.#ended) return;
    if (error != null) this.#end(wasClosed(error as ZerosendError) ? closed() : (error as ZerosendError));
    else if (engine().remaining(this.#token) === 0) this.#after(requireNative().Turn.Done);
    else schedule(this.#turn);
  };

  #warm(next: () => void): void {
    this.#reading = request((event) => {
      this.#reading = 0;
      if (event.error !== undefined) this.#end(event.error as ZerosendError);
      else schedule(next);
    });
    try {
      engine().warm(this.#token, this.#reading);
    } catch (error) {
      this.#end(error as ZerosendError);
    }
  }

  #end(error: ZerosendError | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#reading !== 0) {
      engine().cancel(this.#reading);
      forget(this.#reading);
    }
    this.#socket.removeListener('close', this.#onClose);
    this.#socket.removeListener('connect', this.#turn);
    const report = engine().report(this.#token);
    engine().release(this.#token);
    this.#options.done(error, report);
  }
}

/** How the socket's being closed shows in a write: the stream says so, or from Node 22 on libuv, which had the write already. */
function wasClosed({ code }: ZerosendError): boolean {
  return code === 'ERR_STREAM_DESTROYED' || code === 'ECANCELED';
}

function closed(): ZerosendError {
  return failure('ERR_ZEROSEND_CLOSED', 'the socket was closed before all was sent');
}
