/** Delivering a transfer: one after the other to each target, by the pump or by the reactor, with progress and cancel. */
import { Socket } from 'node:net';

import { engine, forget, request } from './engine.js';
import { aborted, failure, invalid, type ZerosendError } from './errors.js';
import { hold } from './hold.js';
import { isPlainSocket } from './internals.js';
import type { DriveOptions, TransferReport } from './native.js';
import { isDescriptor } from './options.js';
import { Pump } from './pump.js';

/** A plain `net.Socket` (TCP or Unix), or a descriptor of a socket, pipe, file or terminal. */
export type SendTarget = Socket | number;

/** How bytes are delivered, wherever they come from. */
export interface DeliveryOptions {
  /** Milliseconds without a byte moved until it fails with `ERR_ZEROSEND_TIMEOUT`. Default 0: no limit. */
  timeout?: number | undefined;
  /** Cancels at once. Bytes that were sent stay sent; `error.bytes` says how many. */
  signal?: AbortSignal | undefined;
  /** Called with the bytes sent so far (head included), at most every 50 ms, and once at the end. */
  onProgress?: ((bytes: number) => void) | undefined;
  /**
   * The most bytes that one turn sends before others have theirs, 1 to 2^30. Default 1 MiB. Larger costs less CPU a byte,
   * smaller keeps the event loop and the other transfers quicker.
   */
  chunkSize?: number | undefined;
  /**
   * Whether the kernel may hold back a packet that is not full while more bytes follow. Default: where a call is followed
   * by another at once (`MSG_MORE`). `true`: for each turn as a whole too (`TCP_CORK`, tcp(7)). `false`: never.
   */
  cork?: boolean | undefined;
  /** Sets `TCP_NODELAY` (tcp(7)) on the target, where it stays. Default: left as it is. Unix sockets ignore it. */
  noDelay?: boolean | undefined;
}

/** What was done. */
export interface TransferResult {
  /** Bytes handed to the kernel. */
  bytes: number;
  /** The method that was used. */
  method: 'sendfile' | 'splice' | 'mmap' | 'read-write' | 'vmsplice';
  /** Syscalls made by the engine; writes that went through Node's own queue are not counted. */
  syscalls: number;
  /** Wall time in milliseconds, from the moment the target was free. */
  durationMs: number;
}

const PROGRESS_INTERVAL_MS = 50;
/** Bytes a turn moves at most, unless the user says otherwise. */
const CHUNK = 1024 * 1024;

/** What is on its way: a second transfer to (or from) the same end waits for the first. */
type Queues = Map<Socket | number, Promise<unknown>>;

const outgoing: Queues = new Map();

/** Checks everything about a target and a delivery that can be checked without the kernel. */
export function checkDelivery(target: SendTarget, options: DeliveryOptions): void {
  checkPeer('target', target);
  if (target instanceof Socket && target.writableEnded) {
    throw failure('ERR_ZEROSEND_CLOSED', 'the target socket was ended; send before you end it');
  }
  checkOptions(options);
}

/** Checks a socket or descriptor that bytes go to or come from. */
export function checkPeer(name: string, peer: Socket | number): void {
  if (typeof peer === 'number') {
    if (!isDescriptor(peer)) throw invalid(name, peer, 'a descriptor (an integer from 0 up) or a net.Socket');
  } else if (!(peer instanceof Socket)) {
    throw invalid(name, peer, 'a net.Socket or a descriptor');
  } else if (!isPlainSocket(peer)) {
    throw invalid(
      name,
      peer,
      'a plain net.Socket; the bytes of TLS and of wrapped sockets must pass through Node: use stream.pipeline',
    );
  } else if (peer.destroyed) {
    throw failure('ERR_ZEROSEND_CLOSED', `the ${name} socket is closed`);
  }
}

export function checkOptions(options: DeliveryOptions): void {
  const { timeout, signal, onProgress, chunkSize, cork, noDelay } = options;
  if (timeout !== undefined && !(typeof timeout === 'number' && timeout >= 0 && timeout <= 2 ** 31 - 1)) {
    throw invalid('timeout', timeout, 'a number of milliseconds from 0 to 2147483647');
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalid('signal', signal, 'an AbortSignal');
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw invalid('onProgress', onProgress, 'a function');
  }
  if (chunkSize !== undefined && !(Number.isInteger(chunkSize) && chunkSize >= 1 && chunkSize <= 2 ** 30)) {
    throw invalid('chunkSize', chunkSize, 'an integer number of bytes from 1 to 1073741824');
  }
  if (cork !== undefined && typeof cork !== 'boolean') throw invalid('cork', cork, 'a boolean');
  if (noDelay !== undefined && typeof noDelay !== 'boolean') throw invalid('noDelay', noDelay, 'a boolean');
}

/**
 * Delivers the transfer that `open` makes. `open` is called at once, and what it makes is sent when the target's turn
 * for it has come.
 */
export async function deliver(
  target: SendTarget,
  options: DeliveryOptions,
  open: () => number | Promise<number>,
): Promise<TransferResult> {
  const { signal } = options;
  if (signal?.aborted) throw aborted(signal);

  // What is named by a number is duplicated now, before anything is waited for: later the number may be another file's.
  const out = typeof target === 'number' ? engine().holdTarget(target) : undefined;
  const release = target instanceof Socket ? hold(target) : undefined;
  try {
    const opening = open();
    return await inOrder(outgoing, target, signal, async () => {
      const token = await opening;
      try {
        if (signal?.aborted) throw aborted(signal);
        return target instanceof Socket
          ? await toSocket(target, token, options)
          : await toDescriptor(out as number, token, options);
      } finally {
        engine().release(token);
      }
    });
  } finally {
    if (out !== undefined) engine().release(out);
    release?.();
  }
}

/** Runs `task` when the tasks given before it for the same end have ended, however they ended. */
export function inOrder<T>(
  queues: Queues,
  end: Socket | number,
  signal: AbortSignal | undefined,
  task: () => Promise<T>,
): Promise<T> {
  let started = false;
  const begin = () => {
    started = true;
    return task();
  };
  const before = queues.get(end);
  const result = before === undefined ? begin() : before.then(begin, begin);
  queues.set(end, result);
  const leave = () => {
    if (queues.get(end) === result) queues.delete(end);
  };
  result.then(leave, leave);
  if (started || signal === undefined) return result;
  // Cancelled while it waits: told at once. The task finds the signal aborted when its turn comes.
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      if (!started) reject(aborted(signal));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    result.finally(() => signal.removeEventListener('abort', onAbort)).then(resolve, reject);
  });
}

function toSocket(socket: Socket, token: number, options: DeliveryOptions): Promise<TransferResult> {
  const { signal, timeout, noDelay, chunkSize = CHUNK } = options;
  return new Promise((resolve, reject) => {
    if (socket.destroyed || socket.writableEnded) {
      throw failure('ERR_ZEROSEND_CLOSED', 'the target socket was closed before its turn came');
    }
    if (noDelay !== undefined) socket.setNoDelay(noDelay);
    const progress = new Progress(options.onProgress);
    const pump = new Pump(socket, token, {
      chunk: chunkSize,
      onProgress: (bytes) => {
        timer?.refresh();
        progress.report(bytes);
      },
      done: (error, report) => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        if (error === undefined) return resolve(progress.finish(report));
        // A part of the bytes is out and no more will come: only the end of the connection can tell the receiver.
        if (error.code === 'ERR_ZEROSEND_TRUNCATED' || error.syscall !== undefined) socket.destroy();
        reject(Object.assign(error, { bytes: report.bytes }));
      },
    });
    const onAbort = () => pump.stop(aborted(signal as AbortSignal));
    signal?.addEventListener('abort', onAbort, { once: true });
    const timer = timeout ? setTimeout(() => pump.stop(timedOut(timeout)), timeout) : undefined;
    pump.start();
  });
}

function toDescriptor(out: number, token: number, options: DeliveryOptions): Promise<TransferResult> {
  return driven(options, (number, drive) => {
    if (options.noDelay !== undefined) drive.noDelay = options.noDelay;
    engine().drive(token, out, number, drive);
  });
}

/** Lets the reactor do what `start` asks of it, and tells how that goes. */
export async function driven(
  options: DeliveryOptions,
  start: (number: number, drive: DriveOptions) => void,
  cancel?: (cancel: () => void) => void,
): Promise<TransferResult> {
  const { signal, timeout } = options;
  const progress = new Progress(options.onProgress);
  let onAbort = () => {};
  try {
    const report = await new Promise<TransferReport>((resolve, reject) => {
      const number = request((event) => {
        if (event.progress !== undefined) progress.report(event.progress);
        else if (event.error !== undefined) reject(event.error);
        else resolve(event.report as TransferReport);
      });
      onAbort = () => engine().cancel(number);
      signal?.addEventListener('abort', onAbort, { once: true });
      cancel?.(onAbort);
      const drive: DriveOptions = { chunk: options.chunkSize ?? CHUNK };
      if (timeout) drive.timeout = timeout;
      if (options.onProgress !== undefined) drive.progress = PROGRESS_INTERVAL_MS;
      try {
        start(number, drive);
      } catch (error) {
        forget(number);
        throw error;
      }
    });
    return progress.finish(report);
  } catch (error) {
    if (signal?.aborted && (error as ZerosendError).code === 'ABORT_ERR') {
      throw Object.assign(aborted(signal), { bytes: (error as ZerosendError).bytes ?? 0 });
    }
    throw error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
}

function timedOut(timeout: number): ZerosendError {
  return failure(
    'ERR_ZEROSEND_TIMEOUT',
    `no byte moved for ${timeout} ms; the receiver is too slow or gone, or \`timeout\` too short`,
  );
}

/** Measures a transfer and tells of its progress, not too often. */
class Progress {
  readonly #listener: ((bytes: number) => void) | undefined;
  readonly #started = performance.now();
  #reported = this.#started;
  #bytes = -1;

  constructor(listener: ((bytes: number) => void) | undefined) {
    this.#listener = listener;
  }

  report(bytes: number): void {
    const now = performance.now();
    if (this.#listener === undefined || now - this.#reported < PROGRESS_INTERVAL_MS) return;
    this.#reported = now;
    this.#bytes = bytes;
    this.#listener(bytes);
  }

  finish(report: TransferReport): TransferResult {
    if (this.#bytes !== report.bytes) this.#listener?.(report.bytes);
    return { ...report, durationMs: performance.now() - this.#started };
  }
}
