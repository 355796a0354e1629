/**
 * Stops Node from reading a socket, so that its bytes can be read from the descriptor.
 *
 * Node starts reading from several deferred callbacks: `maybeReadMore`, `resume`, `flow` and the completion of a connect call
 * `socket.read()`, and `_read` calls `handle.readStart()`. Stopping the handle is therefore not sufficient: both methods are
 * replaced on the object. Bytes that Node has read stay in its buffer until {@link StoppedReading.take}.
 */
import { Socket } from 'node:net';

import { failure, type ZerosendError } from '../util/errors.js';
import { unshared } from '../util/options.js';

interface ReadingHandle {
  reading: boolean;
  readStart(): number;
  readStop(): number;
}

interface ReadingInternals {
  _handle?: ReadingHandle | null;
  _readableState?: { ended?: boolean };
  readableFlowing: boolean | null;
}

const stopped = new WeakSet<Socket>();

/** The error for a socket that is being read by a relay, a splitter or `receiveFile`; `undefined` if it is not. */
export function readingConflict(name: string, socket: Socket): ZerosendError | undefined {
  if (!stopped.has(socket)) return undefined;
  return failure(
    'ERR_ZEROSEND_BUSY',
    `the ${name} socket is being read by another relay, splitter or receiveFile; wait until it has finished`,
  );
}

/** A socket from which Node does not read. */
export class StoppedReading {
  readonly #socket: Socket;
  readonly #internals: ReadingInternals;
  readonly #flowing: boolean | null;
  readonly #restoreRead: () => void;
  #restoreHandle: (() => void) | undefined;
  #ended = false;

  /** Stops reading: listeners receive no more bytes. The socket may still be connecting. */
  constructor(socket: Socket) {
    this.#socket = socket;
    this.#internals = socket as unknown as ReadingInternals;
    stopped.add(socket);
    this.#flowing = this.#internals.readableFlowing;
    // Not `pause()`: it emits an event, and `isPaused()` would stay true.
    this.#internals.readableFlowing = false;
    this.#restoreRead = shadow(socket, 'read', () => null);
    // `_read` also listens for 'connect': this listener must run first.
    if (socket.connecting) socket.prependOnceListener('connect', this.#stopHandle);
    else this.#stopHandle();
  }

  /** Takes up to `length` bytes (default: all) from Node's read buffer, without emitting `data`. */
  take(length: number = Number.POSITIVE_INFINITY): Buffer | undefined {
    const socket = this.#socket;
    const count = Math.min(socket.readableLength, length);
    if (count === 0) return undefined;
    // Readable.read() emits 'data' for the bytes it returns.
    const restoreEmit = shadow(socket, 'emit', (event: string | symbol, ...args: unknown[]) =>
      event === 'data' ? false : Reflect.apply(Socket.prototype.emit, socket, [event, ...args]),
    );
    try {
      // Exactly the available count: reading more would emit 'end'.
      const bytes = Socket.prototype.read.call(socket, count) as Buffer | null;
      // The program may have put back a view of a SharedArrayBuffer with unshift().
      return bytes === null ? undefined : unshared(bytes);
    } finally {
      restoreEmit();
    }
  }

  /** Resumes reading by Node. `bytes` were taken and are put back. Repeated calls do nothing. */
  restore(bytes?: Buffer): void {
    if (this.#ended) return;
    this.#ended = true;
    const socket = this.#socket;
    stopped.delete(socket);
    socket.removeListener('connect', this.#stopHandle);
    this.#restoreRead();
    if (!socket.destroyed && bytes !== undefined) socket.unshift(bytes);
    this.#restoreHandle?.();
    if (socket.destroyed) return;
    const wasResumed = this.#internals.readableFlowing === true;
    this.#internals.readableFlowing = wasResumed ? false : this.#flowing;
    const flows = wasResumed || this.#flowing === true || (this.#flowing === null && socket.listenerCount('data') > 0);
    if (flows) {
      this.#internals.readableFlowing = false;
      socket.resume();
    }
    const listened = socket.listenerCount('readable') > 0;
    if (socket.readableLength > 0) {
      // Node has emitted 'readable' for these bytes while they could not be read.
      if (listened) process.nextTick(() => socket.destroyed || socket.emit('readable'));
    } else if (listened || this.#flowing !== false || this.#internals._readableState?.ended === true) {
      // Emits a pending 'end', or starts reading.
      socket.read(0);
    }
  }

  readonly #stopHandle = (): void => {
    const handle = this.#internals._handle;
    if (!handle) return;
    let reading = handle.reading;
    handle.readStop();
    handle.reading = false;
    const restoreStart = shadow(handle, 'readStart', () => {
      reading = true;
      return 0;
    });
    const restoreStop = shadow(handle, 'readStop', () => {
      reading = false;
      return 0;
    });
    this.#restoreHandle = () => {
      restoreStart();
      restoreStop();
      if (this.#socket.destroyed) return;
      handle.reading = reading;
      if (reading) handle.readStart();
    };
  };
}

/** Overrides a method of `object` until the returned function is called. */
function shadow(object: object, method: string, replacement: (...args: never[]) => unknown): () => void {
  const before = Object.getOwnPropertyDescriptor(object, method);
  const own = { value: replacement, configurable: true, writable: true, enumerable: false };
  Object.defineProperty(object, method, own);
  return () => {
    if (before !== undefined) Object.defineProperty(object, method, before);
    else delete (object as Record<string, unknown>)[method];
  };
}
