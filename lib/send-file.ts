/** `sendFile`: a file, or a part of one, to a socket or a descriptor. */
import type { FileHandle } from 'node:fs/promises';
import { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';

import { ask, engine, forget, request } from './engine.js';
import { aborted, failure, invalid, type ZerosendError } from './errors.js';
import { hold } from './hold.js';
import { isPlainSocket } from './internals.js';
import type { DriveOptions, SourceOptions, TransferReport } from './native.js';
import { Pump } from './pump.js';

/** How a file's bytes reach the target. `'auto'` chooses by size. */
export type Method = 'auto' | 'sendfile' | 'read-write';

/** A file: a path, a `file:` URL, an open `FileHandle`, or a descriptor. Handles and descriptors stay open and keep their position. */
export type FileSource = string | URL | FileHandle | number;

/** A plain `net.Socket` (TCP or Unix), or a descriptor of a socket, pipe, file or terminal. */
export type SendTarget = Socket | number;

export interface SendFileOptions {
  /** First byte to send. Default 0. */
  offset?: number | undefined;
  /** Number of bytes. Default: to the end of the file. */
  length?: number | undefined;
  /** Bytes that go before the file, in the same packet where they fit. Strings are sent as UTF-8. */
  head?: Uint8Array | string | undefined;
  /** Default `'auto'`. */
  method?: Method | undefined;
  /** Milliseconds without a byte sent until it fails with `ERR_ZEROSEND_TIMEOUT`. Default 0: no limit. */
  timeout?: number | undefined;
  /** Cancels at once. Bytes that were sent stay sent: to go on later, start at `offset + error.bytes` less the head's length. */
  signal?: AbortSignal | undefined;
  /** Called with the bytes sent so far (head included), at most every 50 ms, and once at the end. */
  onProgress?: ((bytes: number) => void) | undefined;
}

export interface SendFileResult {
  /** Bytes handed to the kernel, head included. */
  bytes: number;
  /** The method that was used. */
  method: Exclude<Method, 'auto'>;
  /** Syscalls made by the engine; writes that went through Node's own queue are not counted. */
  syscalls: number;
  /** Wall time in milliseconds, from the moment the target was free. */
  durationMs: number;
}

const METHODS: readonly Method[] = ['auto', 'sendfile', 'read-write'];
const PROGRESS_INTERVAL_MS = 50;
/** Bytes a turn sends at most. */
const CHUNK = 1024 * 1024;

/** What is on its way to each target: a second transfer waits for the first. */
const queues = new Map<SendTarget, Promise<unknown>>();

/**
 * Sends a file to a socket or descriptor, inside the kernel where the method is `sendfile`; see sendfile(2).
 *
 * Bytes that Node still has queued for the socket go first; writes made to it meanwhile go after; a second `sendFile` on
 * the same target waits for the first. The socket stays open at the end.
 *
 * Rejects, always with a `code`: `ERR_ZEROSEND_INVALID_ARGUMENT`, `ERR_ZEROSEND_OUT_OF_RANGE` (offset or length beyond
 * the file), `ERR_ZEROSEND_NOT_REGULAR_FILE`, the errno's name for a file that cannot be opened or a peer that is gone
 * (`ENOENT`, `EACCES`, `EPIPE`, `ECONNRESET`), `ERR_ZEROSEND_CLOSED`, `ERR_ZEROSEND_TIMEOUT`, `ABORT_ERR`, and
 * `ERR_ZEROSEND_TRUNCATED` when the file got shorter meanwhile; then a socket is destroyed, so that the receiver does not
 * take a part for the whole. `error.bytes` says how much had been sent.
 */
export async function sendFile(
  target: SendTarget,
  source: FileSource,
  options: SendFileOptions = {},
): Promise<SendFileResult> {
  const open = prepare(target, source, options);
  const { signal } = options;
  if (signal?.aborted) throw aborted(signal);

  // What is named by a number is duplicated now, before anything is waited for: later the number may be another file's.
  const out = typeof target === 'number' ? engine().holdTarget(target) : undefined;
  const release = target instanceof Socket ? hold(target, 'all') : undefined;
  try {
    const opening = ask((number) => engine().open(number, open));
    return await inOrder(target, signal, async () => {
      const token = (await opening).token as number;
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

/** Checks everything that can be checked without the kernel. */
function prepare(target: SendTarget, source: FileSource, options: SendFileOptions): SourceOptions {
  checkTarget(target);
  const { offset, length, head, method = 'auto', timeout, signal, onProgress } = options;
  checkBytes('offset', offset);
  checkBytes('length', length);
  if (!METHODS.includes(method)) throw invalid('method', method, `one of ${METHODS.join(', ')}`);
  if (timeout !== undefined && !(typeof timeout === 'number' && timeout >= 0 && timeout <= 2 ** 31 - 1)) {
    throw invalid('timeout', timeout, 'a number of milliseconds from 0 to 2147483647');
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalid('signal', signal, 'an AbortSignal');
  if (onProgress !== undefined && typeof onProgress !== 'function')
    throw invalid('onProgress', onProgress, 'a function');
  const open: SourceOptions = { ...nameSource(source), method };
  if (offset !== undefined) open.offset = offset;
  if (length !== undefined) open.length = length;
  if (typeof head === 'string') open.head = Buffer.from(head);
  else if (head instanceof Uint8Array) open.head = head;
  else if (head !== undefined) throw invalid('head', head, 'a string or Uint8Array');
  return open;
}

function checkTarget(target: SendTarget): void {
  if (typeof target === 'number') {
    if (!isDescriptor(target)) throw invalid('target', target, 'a descriptor (an integer from 0 up) or a net.Socket');
  } else if (!(target instanceof Socket)) {
    throw invalid('target', target, 'a net.Socket or a descriptor');
  } else if (!isPlainSocket(target)) {
    throw invalid(
      'target',
      target,
      'a plain net.Socket; the bytes of TLS and of wrapped sockets must pass through Node: use stream.pipeline',
    );
  } else if (target.destroyed || target.writableEnded) {
    throw failure('ERR_ZEROSEND_CLOSED', 'the target socket is closed or was ended; send before you end it');
  }
}

function checkBytes(name: 'offset' | 'length', value: number | undefined): void {
  if (value === undefined) return;
  if (typeof value !== 'number') throw invalid(name, value, 'an integer number of bytes');
  if (!Number.isSafeInteger(value) || value < 0) {
    throw failure(
      'ERR_ZEROSEND_OUT_OF_RANGE',
      `${name} is ${value}, but must be an integer from 0 to ${Number.MAX_SAFE_INTEGER}`,
    );
  }
}

function nameSource(source: FileSource): { path: string } | { fd: number } {
  if (typeof source === 'string') {
    if (source.includes('\0')) {
      throw Object.assign(invalid('source', source, 'a path without NUL bytes'), { path: source });
    }
    return { path: source };
  }
  if (source instanceof URL) {
    if (source.protocol !== 'file:')
      throw invalid('source', source.href, 'a file: URL, a path, a FileHandle or a descriptor');
    return nameSource(fileURLToPath(source));
  }
  const fd = typeof source === 'number' ? source : source?.fd;
  if (typeof source === 'object' && fd === -1) {
    throw failure('ERR_ZEROSEND_CLOSED', 'the FileHandle is closed; open the file again');
  }
  if (!isDescriptor(fd)) throw invalid('source', source, 'a path, a file: URL, a FileHandle or a descriptor');
  return { fd };
}

function isDescriptor(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** 31;
}

/** Runs `task` when the tasks given before it for the same target have ended, however they ended. */
function inOrder<T>(target: SendTarget, signal: AbortSignal | undefined, task: () => Promise<T>): Promise<T> {
  let started = false;
  const begin = () => {
    started = true;
    return task();
  };
  const before = queues.get(target);
  const result = before === undefined ? begin() : before.then(begin, begin);
  queues.set(target, result);
  const leave = () => {
    if (queues.get(target) === result) queues.delete(target);
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

function toSocket(socket: Socket, token: number, options: SendFileOptions): Promise<SendFileResult> {
  const { signal, timeout } = options;
  return new Promise((resolve, reject) => {
    if (socket.destroyed || socket.writableEnded) {
      throw failure('ERR_ZEROSEND_CLOSED', 'the target socket was closed before its turn came');
    }
    const progress = new Progress(options.onProgress);
    const pump = new Pump(socket, token, {
      chunk: CHUNK,
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

async function toDescriptor(out: number, token: number, options: SendFileOptions): Promise<SendFileResult> {
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
      const drive: DriveOptions = { chunk: CHUNK };
      if (timeout) drive.timeout = timeout;
      if (options.onProgress !== undefined) drive.progress = PROGRESS_INTERVAL_MS;
      try {
        engine().drive(token, out, number, drive);
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

  finish(report: TransferReport): SendFileResult {
    if (this.#bytes !== report.bytes) this.#listener?.(report.bytes);
    return { ...report, durationMs: performance.now() - this.#started };
  }
}
