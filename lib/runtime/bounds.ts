/** Timeout, signal and closing of the socket while an operation waits: for a file to be opened, for an earlier operation. */
import type { Socket } from 'node:net';

import { aborted, failure, type ZerosendError } from '../util/errors.js';
import { onceClosed } from './socket-close.js';

/** Conditions that end a wait early. */
export interface Bounds {
  signal?: AbortSignal | undefined;
  /** Maximum milliseconds without progress; 0 or absent for no limit. */
  timeout?: number | undefined;
  /** A socket whose closing ends the wait, and its name for the error. */
  socket?: { name: string; socket: Socket } | undefined;
  /** Returns the time (`performance.now()`) of the last progress. Default: the start of the wait. */
  lastProgress?: (() => number) | undefined;
  /** The cause in the message of a timeout. */
  reason: string;
}

const abortCallbacks = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Calls `callback` once when `signal` aborts, unless the returned function is called before. Adds one listener for all callbacks of a
 * signal: Node warns about more than ten.
 */
export function onceAborted(signal: AbortSignal, callback: () => void): () => void {
  let set = abortCallbacks.get(signal);
  if (set === undefined) {
    set = new Set();
    abortCallbacks.set(signal, set);
  }
  const callbacks = set;
  if (callbacks.size === 0) signal.addEventListener('abort', abortAll, { once: true });
  callbacks.add(callback);
  return () => {
    if (callbacks.delete(callback) && callbacks.size === 0) signal.removeEventListener('abort', abortAll);
  };
}

function abortAll(this: AbortSignal): void {
  const callbacks = abortCallbacks.get(this);
  for (const callback of [...(callbacks ?? [])]) {
    if (callbacks?.delete(callback)) callback();
  }
}

/** The error of an operation that transferred no byte within the timeout. */
export function timedOut(timeout: number, reason: string): ZerosendError {
  return failure(
    'ERR_ZEROSEND_TIMEOUT',
    `no bytes transferred for ${timeout} ms: ${reason}; raise \`timeout\` if this is expected`,
  );
}

/** Settles like `work`, unless a bound is reached first: then calls `giveUp` and rejects. */
export function within<T>(work: Promise<T>, bounds: Bounds, giveUp: () => void): Promise<T> {
  const { signal, timeout, socket, lastProgress, reason } = bounds;
  if (signal === undefined && !timeout && socket === undefined) return work;
  return new Promise((resolve, reject) => {
    const start = performance.now();
    let timer: NodeJS.Timeout | undefined;
    const cleanUp = () => {
      clearTimeout(timer);
      offAbort?.();
      offClose?.();
    };
    const stop = (error: ZerosendError) => {
      cleanUp();
      giveUp();
      reject(error);
    };
    const onAbort = () => stop(aborted(signal as AbortSignal));
    const onClose = () =>
      stop(failure('ERR_ZEROSEND_CLOSED', `the ${socket?.name} socket was closed while the transfer waited`));
    const onTime = (limit: number) => {
      const left = limit - (performance.now() - Math.max(start, lastProgress?.() ?? 0));
      if (left > 0) timer = setTimeout(onTime, Math.ceil(left), limit);
      else stop(timedOut(limit, reason));
    };
    const offAbort = signal && onceAborted(signal, onAbort);
    const offClose = socket && onceClosed(socket.socket, onClose);
    if (timeout) timer = setTimeout(onTime, timeout, timeout);
    work.then(
      (value) => {
        cleanUp();
        resolve(value);
      },
      (error) => {
        cleanUp();
        reject(error);
      },
    );
    if (signal?.aborted) onAbort();
  });
}

/** Resolves when a socket is connected; rejects if connecting fails or the socket is closed. */
export function connected(socket: Socket, closed: () => ZerosendError): Promise<void> {
  if (!socket.connecting) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const settle = (error?: Error) => {
      socket.removeListener('connect', onConnect);
      socket.removeListener('error', settle);
      socket.removeListener('close', onClose);
      if (error === undefined) resolve();
      else reject(error);
    };
    const onConnect = () => settle();
    const onClose = () => settle(closed());
    socket.once('connect', onConnect);
    socket.once('error', settle);
    socket.once('close', onClose);
  });
}
