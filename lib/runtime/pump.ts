/**
 * Runs a transfer to a Node socket on the JavaScript thread, without a watcher for the descriptor.
 *
 * It sends until the socket would block, then writes one small chunk through Node's write queue. The callback of that write
 * signals that the socket is writable. So Node's timeouts, errors and order of bytes stay correct.
 */
import { AsyncResource } from 'node:async_hooks';
import type { Socket } from 'node:net';
import type { TransferReport } from '#native';
import { writeThrough } from '../node/intercept-writes.js';
import { descriptor, hasQueuedBytes } from '../node/node-internals.js';
import { failure, type ZerosendError } from '../util/errors.js';
import { closeRequest, engine, openRequest } from './engine.js';
import { requireNative } from './native.js';
import { runLater, schedule, spend } from './send-budget.js';

/** Bytes of the chunk written through Node's queue: some 1 % of the bytes that the socket accepts before it would block. */
const CHUNK_SIZE = 16 * 1024;

export interface PumpOptions {
  /** Maximum of bytes sent in one turn. */
  chunk: number;
  /** Called after each turn that sent bytes. */
  onProgress?: ((sent: number) => void) | undefined;
  /** Called once, after the transfer was released. */
  done: (error: ZerosendError | undefined, report: TransferReport) => void;
}

/** A transfer to a socket whose writes are deferred (`interceptWrites`). The transfer is released at the end, also after an error. */
export class Pump {
  readonly #socket: Socket;
  readonly #handle: number;
  readonly #options: PumpOptions;
  readonly #onClose = () => this.stop(closed());
  #remaining: number;
  #ended = false;
  #reading = 0;

  constructor(socket: Socket, handle: number, options: PumpOptions) {
    this.#socket = socket;
    this.#handle = handle;
    const { chunk, onProgress, done } = options;
    // Turns run in the async context of other transfers. The callbacks must run in that of the caller (AsyncLocalStorage).
    this.#options = {
      chunk,
      onProgress: onProgress && AsyncResource.bind(onProgress),
      done: AsyncResource.bind(done),
    };
    this.#remaining = engine().remaining(handle);
    socket.once('close', this.#onClose);
  }

  /** Starts after the bytes that Node has queued for the socket. */
  start(): void {
    if (this.#socket.connecting) {
      this.#socket.once('connect', this.#turn);
    } else if (hasQueuedBytes(this.#socket)) {
      // The callback of an empty write is called after all earlier writes.
      writeThrough(this.#socket, '', this.#written);
    } else {
      schedule(this.#turn);
    }
  }

  /** Continues after a turn that the caller has run. */
  resume(turn: number): void {
    this.#after(turn);
  }

  /** True while the next bytes are read from the disk. */
  get waitsForFile(): boolean {
    return this.#reading !== 0;
  }

  /** Ends the transfer at once. */
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
      turn = engine().advance(this.#handle, descriptor(this.#socket), this.#options.chunk);
    } catch (error) {
      this.#end(error as ZerosendError);
      return;
    }
    this.#after(turn);
  };

  #after(turn: number): void {
    const { Turn } = requireNative();
    const remaining = engine().remaining(this.#handle);
    if (remaining < this.#remaining) {
      spend(this.#remaining - remaining);
      this.#remaining = remaining;
      this.#options.onProgress?.(engine().report(this.#handle).bytes);
      if (this.#ended) return;
    }
    if (turn === Turn.Done) this.#end(undefined);
    else if (turn === Turn.Yield) runLater(this.#turn);
    else if (turn === Turn.Cold) this.#prefetch(this.#turn);
    else this.#sendChunk();
  }

  readonly #sendChunk = (): void => {
    if (this.#ended) return;
    let chunk: Uint8Array | null;
    try {
      chunk = engine().take(this.#handle, CHUNK_SIZE);
    } catch (error) {
      this.#end(error as ZerosendError);
      return;
    }
    if (chunk === null) this.#prefetch(this.#sendChunk);
    else writeThrough(this.#socket, chunk, this.#written);
  };

  readonly #written = (error?: Error | null): void => {
    if (this.#ended) return;
    if (error != null) this.#end(wasClosed(error as ZerosendError) ? closed() : (error as ZerosendError));
    else if (engine().remaining(this.#handle) === 0) this.#after(requireNative().Turn.Done);
    else schedule(this.#turn);
  };

  #prefetch(next: () => void): void {
    this.#reading = openRequest((event) => {
      this.#reading = 0;
      if (event.error !== undefined) this.#end(event.error as ZerosendError);
      else schedule(next);
    });
    try {
      engine().prefetch(this.#handle, this.#reading);
    } catch (error) {
      this.#end(error as ZerosendError);
    }
  }

  #end(error: ZerosendError | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#reading !== 0) {
      engine().cancel(this.#reading);
      closeRequest(this.#reading);
    }
    this.#socket.removeListener('close', this.#onClose);
    this.#socket.removeListener('connect', this.#turn);
    const report = engine().report(this.#handle);
    engine().release(this.#handle);
    this.#options.done(error, report);
  }
}

/** Whether a write failed because the socket was closed: an error of the stream, or from Node 22 on an error of libuv. */
function wasClosed({ code }: ZerosendError): boolean {
  return code === 'ERR_STREAM_DESTROYED' || code === 'ECANCELED';
}

function closed(): ZerosendError {
  return failure('ERR_ZEROSEND_CLOSED', 'the socket was closed before all bytes were sent');
}
