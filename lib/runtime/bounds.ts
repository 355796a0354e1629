/** Bounds of the phases in which an operation waits: for a file to be opened, for its turn. */
import type { Socket } from 'node:net';

import { aborted, failure, type ZerosendError } from '../util/errors.js';
import { onceClosed } from './socket-close.js';

/** What ends a wait before its time. */
export interface Bounds {
  signal?: AbortSignal | undefined;
  /** Milliseconds without progress; 0 or absent: no limit. */
  timeout?: number | undefined;
  /** A socket whose closing ends the wait, and its name. */
  socket?: { name: string; socket: Socket } | undefined;
  /** The time (`performance.now()`) of the last progress of what is waited for. Default: the begin of the wait. */
  lastProgress?: (() => number) | undefined;
  /** What a timeout says about what was waited for. */
  reason: string;
}

const abortCallbacks = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Calls `callback` once when `signal` aborts, unless the returned function is called before. However many wait for one signal, it
 * has one listener: Node warns about more than ten.
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

/** The error of an operation that did not move a byte in time. */
export function timedOut(timeout: number, reason: string): ZerosendError {
  return failure(
    'ERR_ZEROSEND_TIMEOUT',
    `no bytes transferred for ${timeout} ms: ${reason}; raise \`timeout\` if this is expected`,
  );
}

/** Settles like `work`, unless a bound is reached first: then it rejects at once, after `giveUp` was called. */
export function within<T>(work: Promise<T>, bounds: Bounds, giveUp: () => void): Promise<T> {
  const { signal, timeout, socket, lastProgress, reason } = bounds;
  if (signal === undefined && !timeout && socket === undefined) return work;
  return new Promise((resolve, reject) => {
    const begin = performance.now();
    let timer: NodeJS.Timeout | undefined;
    const end = () => {
      clearTimeout(timer);
      offAbort?.();
      offClose?.();
    };
    const stop = (error: ZerosendError) => {
      end();
      giveUp();
      reject(error);
    };
    const onAbort = () => stop(aborted(signal as AbortSignal));
    const onClose = () =>
      stop(failure('ERR_ZEROSEND_CLOSED', `the ${socket?.name} socket was closed while the transfer waited`));
    const onTime = (limit: number) => {
      const left = limit - (performance.now() - Math.max(begin, lastProgress?.() ?? 0));
      if (left > 0) timer = setTimeout(onTime, Math.ceil(left), limit);
      else stop(timedOut(limit, reason));
    };
    const offAbort = signal && onceAborted(signal, onAbort);
    const offClose = socket && onceClosed(socket.socket, onClose);
    if (timeout) timer = setTimeout(onTime, timeout, timeout);
    work.then(
      (value) => {
        end();
        resolve(value);
      },
      (error) => {
        end();
        reject(error);
      },
    );
    if (signal?.aborted) onAbort();
  });
}

/** Resolves when a socket is connected; rejects when that fails or the socket is closed before. */
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
