/** Runs transfers: to sockets by the pump, to descriptors by the native reactor, with progress, timeout and abort. */
import { Socket } from 'node:net';
import type { DriveOptions, TransferReport } from '#native';
import { interceptWrites, isEndDeferred } from '../node/intercept-writes.js';
import { aborted, failure, type ZerosendError } from '../util/errors.js';
import { onceAborted, timedOut, within } from './bounds.js';
import type { DeliveryOptions, TransferResult } from './delivery-options.js';
import { closeRequest, engine, openRequest, type PendingHandle } from './engine.js';
import type { SendTarget } from './peer.js';
import { Pump } from './pump.js';
import { continued, reset, resetUnlessContinued } from './reset.js';
import { inOrder, type Queues } from './transfer-queue.js';

const SLOW_RECEIVER = 'the receiver is too slow or gone';
const SLOW_SOURCE = "the source file's storage is too slow or hangs";
const WAITING = 'an earlier transfer to the same target makes no progress';
const OPENING = 'the source file cannot be opened: its storage is too slow or hangs';
const PROGRESS_INTERVAL_MS = 50;
/** Default of `chunkSize` in bytes. */
const CHUNK_SIZE = 1024 * 1024;

const outgoing: Queues = new Map();

/** Calls `open` at once, and sends its transfer after earlier transfers to the same target. */
export async function deliver(
  target: SendTarget,
  options: DeliveryOptions,
  open: () => number | PendingHandle,
): Promise<TransferResult> {
  const { signal, timeout } = options;
  if (signal?.aborted) throw aborted(signal);

  // Duplicated before anything is awaited: later the number may refer to another file.
  const out = typeof target === 'number' ? engine().duplicateDescriptor(target) : undefined;
  const release = target instanceof Socket ? interceptWrites(target) : undefined;
  try {
    const opened = open();
    const opening: PendingHandle =
      typeof opened === 'number' ? { handle: Promise.resolve(opened), cancel: () => {} } : opened;
    const socket = target instanceof Socket ? { name: 'target', socket: target } : undefined;
    const bounds = { signal, timeout, socket };
    return await inOrder(outgoing, target, { ...bounds, reason: WAITING }, async (onMoved) => {
      const handle = await within(opening.handle, { ...bounds, reason: OPENING }, opening.cancel);
      if (signal?.aborted) throw aborted(signal);
      return target instanceof Socket
        ? await toSocket(target, handle, options, onMoved)
        : await toDescriptor(out as number, handle, options, onMoved);
    }).finally(() => {
      // If this ended before the file was opened or sent, the file is closed.
      opening.cancel();
      opening.handle.then(
        (handle) => engine().release(handle),
        () => {},
      );
    });
  } finally {
    if (out !== undefined) engine().release(out);
    release?.();
  }
}

function toSocket(
  socket: Socket,
  handle: number,
  options: DeliveryOptions,
  onMoved: () => void,
): Promise<TransferResult> {
  const { signal, timeout, noDelay, chunkSize = CHUNK_SIZE } = options;
  return new Promise((resolve, reject) => {
    if (socket.destroyed || socket.writableEnded) {
      throw failure('ERR_ZEROSEND_CLOSED', 'the target socket was closed before the transfer started');
    }
    if (noDelay !== undefined) socket.setNoDelay(noDelay);
    continued(socket);
    const progress = new Progress(options.onProgress);
    const pump = new Pump(socket, handle, {
      chunk: chunkSize,
      onProgress: (bytes) => {
        timer?.refresh();
        onMoved();
        progress.report(bytes);
      },
      done: (error, report) => {
        clearTimeout(timer);
        offAbort?.();
        if (error === undefined) return resolve(progress.finish(report));
        // The bytes sent are incomplete. Only a reset shows that to the receiver.
        if (isIncomplete(error)) reset(socket);
        // The caller may resume. But a deferred end(), or a close instead of resuming, would look like a complete transfer.
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

/** True for a failure of the source or of zerosend; false for aborts and timeouts. */
function isIncomplete({ code, syscall }: ZerosendError): boolean {
  return code === 'ERR_ZEROSEND_TRUNCATED' || code === 'ERR_ZEROSEND_INTERNAL' || syscall !== undefined;
}

function toDescriptor(
  out: number,
  handle: number,
  options: DeliveryOptions,
  onMoved: () => void,
): Promise<TransferResult> {
  return driven(options, onMoved, (number, drive) => {
    if (options.noDelay !== undefined) drive.noDelay = options.noDelay;
    engine().drive(handle, out, number, drive);
  });
}

/** Runs the native transfer that `start` starts, and reports its progress. */
export async function driven(
  options: DeliveryOptions,
  onMoved: () => void,
  start: (number: number, drive: DriveOptions) => void,
  onCancelable?: (cancel: () => void) => void,
): Promise<TransferResult> {
  const { signal, timeout } = options;
  const progress = new Progress(options.onProgress);
  let offAbort: (() => void) | undefined;
  try {
    const report = await new Promise<TransferReport>((resolve, reject) => {
      const number = openRequest((event) => {
        if (event.progress !== undefined) {
          onMoved();
          progress.report(event.progress);
        } else if (event.error !== undefined) reject(event.error);
        else resolve(event.value as TransferReport);
      });
      const stop = () => engine().cancel(number);
      offAbort = signal && onceAborted(signal, stop);
      onCancelable?.(stop);
      const drive: DriveOptions = { chunk: options.chunkSize ?? CHUNK_SIZE, progress: PROGRESS_INTERVAL_MS };
      if (timeout) drive.timeout = timeout;
      try {
        start(number, drive);
      } catch (error) {
        closeRequest(number);
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

/** Measures a transfer, and reports its progress at most every 50 ms. */
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
