/**
 * Stops Node from reading a socket, so that its bytes can be read from the descriptor, and lets it read again.
 *
 * Node starts reading from several deferred places: `maybeReadMore`, `resume`, `flow` and the end of a connect all call
 * `socket.read()`, and `_read` calls `handle.readStart()`. Stopping the handle once is therefore not enough: while a socket is
 * stopped both methods are replaced on the object itself. Bytes that Node has read stay in its buffer, out of reach of
 * every listener, until {@link StoppedReading.take}.
 */
import { Socket } from 'node:net';

import { failure, type ZerosendError } from '../util/errors.js';

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

/** The error of a socket that is already being read by a relay, a splitter or `receiveFile`. */
export function readingIsTaken(name: string, socket: Socket): ZerosendError | undefined {
  if (!stopped.has(socket)) return undefined;
  return failure(
    'ERR_ZEROSEND_BUSY',
    `the ${name} socket is already read by another relay, splitter or receiveFile; wait for it to end`,
  );
}

/** A socket that Node does not read. */
export class StoppedReading {
  readonly #socket: Socket;
  readonly #internals: ReadingInternals;
  readonly #flowing: boolean | null;
  readonly #restoreRead: () => void;
  #restoreHandle: (() => void) | undefined;
  #ended = false;

  /** From here on no byte reaches Node's listeners. The socket may still be connecting. */
  constructor(socket: Socket) {
    this.#socket = socket;
    this.#internals = socket as unknown as ReadingInternals;
    stopped.add(socket);
    this.#flowing = this.#internals.readableFlowing;
    // Not `pause()`: it emits an event and stays visible in `isPaused()` after the end.
    this.#internals.readableFlowing = false;
    this.#restoreRead = shadow(socket, 'read', () => null);
    // `_read` waits for 'connect' too, so this listener has to run before its own.
    if (socket.connecting) socket.prependOnceListener('connect', this.#stopHandle);
    else this.#stopHandle();
  }

  /** Removes up to `length` bytes, default all, from what Node has read, without emitting `data`. */
  take(length: number = Number.POSITIVE_INFINITY): Buffer | undefined {
    const socket = this.#socket;
    const count = Math.min(socket.readableLength, length);
    if (count === 0) return undefined;
    // Readable.read() emits 'data' for what it returns, in every mode.
    const restoreEmit = shadow(socket, 'emit', (event: string | symbol, ...args: unknown[]) =>
      event === 'data' ? false : Reflect.apply(Socket.prototype.emit, socket, [event, ...args]),
    );
    try {
      // The exact count: a read that asks for more than there is would emit 'end'.
      return (Socket.prototype.read.call(socket, count) as Buffer | null) ?? undefined;
    } finally {
      restoreEmit();
    }
  }

  /** Lets Node read again. `bytes`: what was taken and is to be read by Node after all. Later calls do nothing. */
  giveBack(bytes?: Buffer): void {
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
      // Node has announced these bytes already, while they could not be read.
      if (listened) process.nextTick(() => socket.destroyed || socket.emit('readable'));
    } else if (listened || this.#flowing !== false || this.#internals._readableState?.ended === true) {
      // Emits an 'end' that is due, reads for the listener, or starts the reading that a new connection begins with.
      socket.read(0);
    }
  }

  readonly #stopHandle = (): void => {
    const handle = this.#internals._handle;
    if (!handle) return;
    let wanted = handle.reading;
    handle.readStop();
    handle.reading = false;
    const restoreStart = shadow(handle, 'readStart', () => {
      wanted = true;
      return 0;
    });
    const restoreStop = shadow(handle, 'readStop', () => {
      wanted = false;
      return 0;
    });
    this.#restoreHandle = () => {
      restoreStart();
      restoreStop();
      if (this.#socket.destroyed) return;
      handle.reading = wanted;
      if (wanted) handle.readStart();
    };
  };
}

/** Puts a method in front of the one that `object` has; the function that is returned removes it. */
function shadow(object: object, method: string, replacement: (...args: never[]) => unknown): () => void {
  const before = Object.getOwnPropertyDescriptor(object, method);
  const own = { value: replacement, configurable: true, writable: true, enumerable: false };
  Object.defineProperty(object, method, own);
  return () => {
    if (before !== undefined) Object.defineProperty(object, method, before);
    else delete (object as Record<string, unknown>)[method];
  };
}
