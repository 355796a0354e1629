/** Delivering a transfer: one after the other to each target, by the pump or by the reactor, with progress and cancel. */
import { Socket } from 'node:net';
import type { DriveOptions, TransferReport } from '#native';
import { interceptWrites, isEndDeferred } from '../node/intercept-writes.js';
import { descriptor, hasParser, isPlainSocket } from '../node/node-internals.js';
import { readingIsTaken } from '../node/socket-reading.js';
import { aborted, failure, invalid, type ZerosendError } from '../util/errors.js';
import { isDescriptor } from '../util/options.js';
import { type Bounds, onceAborted, timedOut, within } from './bounds.js';
import { engine, forget, type Opening, request } from './engine.js';
import { Pump } from './pump.js';
import { continued, reset, resetUnlessContinued } from './reset.js';

/** A plain `net.Socket` (TCP or Unix), or a descriptor of a socket, pipe, file or terminal. */
export type SendTarget = Socket | number;

/** How bytes are delivered, wherever they come from. */
export interface DeliveryOptions {
  /**
   * Milliseconds without a byte moved until it fails with `ERR_ZEROSEND_TIMEOUT`, whatever it waits for: the file to be opened or
   * read, the receiver, or the transfer before it on the same target (then: without a byte of that one). The message says
   * which. Default 0: no limit.
   */
  timeout?: number | undefined;
  /** Cancels at once, in every phase. Bytes that were sent stay sent; `error.bytes` says how many. */
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

const SLOW_RECEIVER = 'the receiver is too slow or gone';
const SLOW_SOURCE = "the source file's storage is too slow or hangs";
const PROGRESS_INTERVAL_MS = 50;
/** Bytes a turn moves at most, unless the user says otherwise. */
const CHUNK = 1024 * 1024;

/** What is on its way to (or from) one end: the last transfer of the queue, and when a byte last moved. */
interface Queue {
  last: Promise<unknown>;
  progress: number;
}

/** A second transfer to (or from) the same end waits for the first. */
export type Queues = Map<Socket | number, Queue>;

const outgoing: Queues = new Map();

const WAITING = 'the transfer before it on the same target does not move';
const OPENING = 'the source file is not opened: its storage is too slow or hangs';

/** Checks everything about a target and a delivery that can be checked without the kernel. */
export function checkDelivery(target: SendTarget, options: DeliveryOptions): void {
  if (target instanceof Socket && target.writableEnded && !target.destroyed) {
    throw failure('ERR_ZEROSEND_CLOSED', ended(target));
  }
  checkPeer('target', target);
  checkOptions(options);
}

/** Checks a socket or descriptor that bytes go to or come from. */
export function checkPeer(name: string, peer: Socket | number): void {
  if (typeof peer === 'number') {
    if (!isDescriptor(peer)) throw invalid(name, peer, 'a descriptor (an integer from 0 up) or a net.Socket');
  } else if (!(peer instanceof Socket)) {
    throw invalid(name, peer, 'a net.Socket or a descriptor');
  } else if (peer.destroyed) {
    throw failure('ERR_ZEROSEND_CLOSED', `the ${name} socket is closed`);
  } else if (!isPlainSocket(peer)) {
    throw invalid(
      name,
      peer,
      'a plain net.Socket; the bytes of TLS and of wrapped sockets must pass through Node: use stream.pipeline',
    );
  } else if (!peer.connecting && descriptor(peer) < 0) {
    throw failure('ERR_ZEROSEND_CLOSED', `the ${name} socket is not connected; connect it first`);
  }
}

/** Checks a socket or descriptor that bytes are read from. Nothing has happened to it when this throws. */
export function checkSource(name: string, source: Socket | number): void {
  checkPeer(name, source);
  if (typeof source === 'number') return;
  if (source.readableEncoding !== null || source.readableObjectMode) {
    throw invalid(
      name,
      source,
      'a socket that gives bytes: after setEncoding() what Node has read is text; leave it out, or use stream.pipeline',
    );
  }
  if (hasParser(source)) {
    throw invalid(
      name,
      source,
      "a socket without an HTTP parser, which takes its bytes: wait for 'upgrade' or 'connect', or use stream.pipeline",
    );
  }
  const busy = readingIsTaken(name, source);
  if (busy !== undefined) throw busy;
}

/** Why a socket that was ended takes no more bytes. */
function ended(socket: Socket): string {
  return socket.readableEnded && !socket.allowHalfOpen
    ? 'the peer has ended its side, and Node has ended the target socket for it; to go on sending, make it with allowHalfOpen: true'
    : 'the target socket was ended; send before you end it';
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
  open: () => number | Opening,
): Promise<TransferResult> {
  const { signal, timeout } = options;
  if (signal?.aborted) throw aborted(signal);

  // What is named by a number is duplicated now, before anything is waited for: later the number may be another file's.
  const out = typeof target === 'number' ? engine().holdTarget(target) : undefined;
  const release = target instanceof Socket ? interceptWrites(target) : undefined;
  try {
    const opened = open();
    const opening: Opening = typeof opened === 'number' ? { token: Promise.resolve(opened), giveUp: () => {} } : opened;
    const socket = target instanceof Socket ? { name: 'target', socket: target } : undefined;
    const bounds = { signal, timeout, socket };
    return await inOrder(outgoing, target, { ...bounds, reason: WAITING }, async (moved) => {
      const token = await within(opening.token, { ...bounds, reason: OPENING }, opening.giveUp);
      if (signal?.aborted) throw aborted(signal);
      return target instanceof Socket
        ? await toSocket(target, token, options, moved)
        : await toDescriptor(out as number, token, options, moved);
    }).finally(() => {
      // Given up before it was opened, or before its turn: what comes later is closed.
      opening.giveUp();
      opening.token.then(
        (token) => engine().release(token),
        () => {},
      );
    });
  } finally {
    if (out !== undefined) engine().release(out);
    release?.();
  }
}

/**
 * Runs `task` when the tasks given before it for the same end have ended, however they ended. While it waits, `bounds` hold;
 * one that they end is not run. The task reports that a byte has moved by calling its argument.
 */
export async function inOrder<T>(
  queues: Queues,
  end: Socket | number,
  bounds: Bounds,
  task: (moved: () => void) => Promise<T>,
): Promise<T> {
  const queue = queues.get(end) ?? { last: Promise.resolve(), progress: 0 };
  const waits = queues.has(end);
  queues.set(end, queue);
  let leave = () => {};
  const before = queue.last;
  const place = new Promise<void>((resolve) => {
    leave = resolve;
  });
  // The one behind waits for all before it, also when this one gives up its place.
  const last = before.then(() => place);
  queue.last = last;
  try {
    if (waits) await within(before, { ...bounds, lastProgress: () => queue.progress }, () => {});
    queue.progress = performance.now();
    return await task(() => {
      queue.progress = performance.now();
    });
  } finally {
    leave();
    last.then(() => {
      if (queue.last === last) queues.delete(end);
    });
  }
}

function toSocket(socket: Socket, token: number, options: DeliveryOptions, moved: () => void): Promise<TransferResult> {
  const { signal, timeout, noDelay, chunkSize = CHUNK } = options;
  return new Promise((resolve, reject) => {
    if (socket.destroyed || socket.writableEnded) {
      throw failure('ERR_ZEROSEND_CLOSED', 'the target socket was closed before its turn came');
    }
    if (noDelay !== undefined) socket.setNoDelay(noDelay);
    continued(socket);
    const progress = new Progress(options.onProgress);
    const pump = new Pump(socket, token, {
      chunk: chunkSize,
      onProgress: (bytes) => {
        timer?.refresh();
        moved();
        progress.report(bytes);
      },
      done: (error, report) => {
        clearTimeout(timer);
        offAbort?.();
        if (error === undefined) return resolve(progress.finish(report));
        // A part of the bytes is out and no more will come: only the end of the connection can tell the receiver.
        if (isIncomplete(error)) reset(socket);
        // The caller may go on. An end that was deferred, or a close instead, would look like the end of the whole.
        else if (report.bytes > 0 && isEndDeferred(socket)) reset(socket);
        else if (report.bytes > 0) resetUnlessContinued(socket);
        reject(Object.assign(error, { bytes: report.bytes }));
      },
    });
    const offAbort = signal && onceAborted(signal, () => pump.stop(aborted(signal)));
    const timer = timeout
      ? setTimeout(() => pump.stop(timedOut(timeout, pump.waitsForFile ? SLOW_SOURCE : SLOW_RECEIVER)), timeout)
      : undefined;
    pump.start();
  });
}

/** True for a failure of the source or the engine, and not for what the caller decided. */
function isIncomplete({ code, syscall }: ZerosendError): boolean {
  return code === 'ERR_ZEROSEND_TRUNCATED' || code === 'ERR_ZEROSEND_INTERNAL' || syscall !== undefined;
}

function toDescriptor(
  out: number,
  token: number,
  options: DeliveryOptions,
  moved: () => void,
): Promise<TransferResult> {
  return driven(options, moved, (number, drive) => {
    if (options.noDelay !== undefined) drive.noDelay = options.noDelay;
    engine().drive(token, out, number, drive);
  });
}

/** Lets the reactor do what `start` asks of it, and tells how that goes. */
export async function driven(
  options: DeliveryOptions,
  moved: () => void,
  start: (number: number, drive: DriveOptions) => void,
  cancel?: (cancel: () => void) => void,
): Promise<TransferResult> {
  const { signal, timeout } = options;
  const progress = new Progress(options.onProgress);
  let offAbort: (() => void) | undefined;
  try {
    const report = await new Promise<TransferReport>((resolve, reject) => {
      const number = request((event) => {
        if (event.progress !== undefined) {
          moved();
          progress.report(event.progress);
        } else if (event.error !== undefined) reject(event.error);
        else resolve(event.report as TransferReport);
      });
      const stop = () => engine().cancel(number);
      offAbort = signal && onceAborted(signal, stop);
      cancel?.(stop);
      const drive: DriveOptions = { chunk: options.chunkSize ?? CHUNK, progress: PROGRESS_INTERVAL_MS };
      if (timeout) drive.timeout = timeout;
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
    offAbort?.();
  }
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
