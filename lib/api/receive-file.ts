/** `receiveFile`: from a socket or pipe into a file, without a trip through user space. */
import type { Socket } from 'node:net';

import { descriptor } from '../node/node-internals.js';
import { StoppedReading } from '../node/socket-reading.js';
import { connected, within } from '../runtime/bounds.js';
import { checkOptions, checkSource, driven, inOrder, type Queues, type TransferResult } from '../runtime/deliver.js';
import { engine, openToken } from '../runtime/engine.js';
import { aborted, failure, invalid, type ZerosendError } from '../util/errors.js';
import { checkBytes, type FileSource, nameFile } from '../util/options.js';

/** A plain `net.Socket` (TCP or Unix), or a descriptor of a socket, pipe or file. */
export type ReceiveSource = Socket | number;

export interface ReceiveFileOptions {
  /** Number of bytes. Default: all until the source ends. */
  length?: number | undefined;
  /**
   * Where the first byte goes, in bytes from the start of the file, its size at most. What is before it stays, what is behind it is
   * overwritten as far as bytes come. A path is created if it is missing and not emptied; a descriptor's position is neither
   * used nor moved. Default: see {@link receiveFile}. To go on after an error: the old offset, plus `error.bytes`.
   */
  offset?: number | undefined;
  /** Starts at the end of the file, as `offset` with its size. Default false. */
  append?: boolean | undefined;
  /**
   * Milliseconds without a byte received until it fails with `ERR_ZEROSEND_TIMEOUT`, whatever it waits for: the file to be opened
   * or written, the sender, or the transfer before it from the same source. Default 0: no limit.
   */
  timeout?: number | undefined;
  /** Cancels at once. Bytes that were received stay in the file; `error.bytes` says how many. */
  signal?: AbortSignal | undefined;
  /** Called with the bytes received so far, at most every 50 ms, and once at the end. */
  onProgress?: ((bytes: number) => void) | undefined;
  /** The most bytes that one turn receives before others have theirs, 1 to 2^30. Default 1 MiB. */
  chunkSize?: number | undefined;
}

const incoming: Queues = new Map();

const WAITING = 'the transfer before it from the same source does not move';
const CONNECTING = 'the source socket is not connected yet';
const OPENING = 'the target file is not opened: its storage is too slow or hangs';

/**
 * Receives into a file, through a pipe: splice(2) twice. A path is made or emptied, unless `offset` or `append` is given; a
 * descriptor or `FileHandle` is written to from its position on, which moves on. (A file opened with `'r+'` has its position at
 * byte 0: without `offset` or `append` its bytes are overwritten from there.)
 *
 * A socket's own reading is stopped meanwhile, in whatever state it is, and goes on at the end: what came beyond `length` is then
 * read from it as usual. Bytes that Node had read before come first. When nothing was received because the file cannot be
 * opened or an argument is wrong, Node reads them as if nothing had been asked.
 *
 * Rejects with `ERR_ZEROSEND_TRUNCATED` when the source ends before `length` bytes, `ERR_ZEROSEND_NOT_REGULAR_FILE` for a
 * target that is no regular file, `ERR_ZEROSEND_OUT_OF_RANGE` for an `offset` beyond its end,
 * `ERR_ZEROSEND_INVALID_ARGUMENT` for one opened for appending (O_APPEND), for a socket that gives text (`setEncoding`), and for
 * the socket of an HTTP request, whose bytes Node's parser takes (after `'upgrade'` and `'connect'` it is fine),
 * `ERR_ZEROSEND_BUSY` for a socket that a relay or splitter reads, and otherwise as `sendFile`. The file keeps what had come:
 * `error.bytes`.
 */
export async function receiveFile(
  source: ReceiveSource,
  target: FileSource,
  options: ReceiveFileOptions = {},
): Promise<TransferResult> {
  checkSource('source', source);
  const { length, offset, append = false, signal } = options;
  checkOptions(options);
  checkBytes('length', length);
  checkBytes('offset', offset);
  if (typeof append !== 'boolean') throw invalid('append', append, 'a boolean');
  if (append && offset !== undefined) {
    throw failure(
      'ERR_ZEROSEND_INVALID_ARGUMENT',
      'offset and append exclude each other: append starts at the end of the file',
    );
  }
  const name = nameFile('target', target);
  if (signal?.aborted) throw aborted(signal);

  // Numbers are duplicated now, before anything is waited for.
  const from = typeof source === 'number' ? engine().holdTarget(source) : undefined;
  try {
    const start = offset === undefined ? {} : { offset };
    const opening = openToken((number) => engine().openSink(number, { ...name, ...start, append }));
    const socket = typeof source === 'number' ? undefined : { name: 'source', socket: source };
    const bounds = { signal, timeout: options.timeout, socket };
    return await inOrder(incoming, source, { ...bounds, reason: WAITING }, async (moved) => {
      if (signal?.aborted) throw aborted(signal);
      const sink = () => within(opening.token, { ...bounds, reason: OPENING }, opening.giveUp);
      if (from === undefined) return await fromSocket(source as Socket, sink, options, moved);
      const opened = await sink();
      return await driven(options, moved, (number, drive) =>
        engine().receive(opened, from, number, length, undefined, drive),
      );
    }).finally(() => {
      // Given up before it was opened, or before its turn: what comes later is closed.
      opening.giveUp();
      opening.token.then(
        (token) => engine().release(token),
        () => {},
      );
    });
  } finally {
    if (from !== undefined) engine().release(from);
  }
}

async function fromSocket(
  socket: Socket,
  opened: () => Promise<number>,
  options: ReceiveFileOptions,
  moved: () => void,
): Promise<TransferResult> {
  const { signal, timeout } = options;
  const closed = () => failure('ERR_ZEROSEND_CLOSED', 'the source socket was closed before all was received');
  checkSource('source', socket);
  let from = socket.connecting ? undefined : engine().holdTarget(descriptor(socket));
  const reading = new StoppedReading(socket);
  let before: Buffer | undefined;
  let gone = false;
  let onClose = () => {};
  try {
    await within(connected(socket, closed), { signal, timeout, reason: CONNECTING }, () => {});
    const sink = await opened();
    from ??= engine().holdTarget(descriptor(socket));
    const source = from;
    return await driven(
      options,
      moved,
      (number, drive) => {
        before = reading.take(options.length);
        engine().receive(sink, source, number, options.length, before, drive);
        before = undefined;
      },
      (cancel) => {
        onClose = () => {
          // When Node has seen the end, its closing the socket takes no bytes away.
          if (socket.readableEnded) return;
          gone = true;
          cancel();
        };
        socket.once('close', onClose);
      },
    );
  } catch (error) {
    throw gone ? Object.assign(closed(), { bytes: (error as ZerosendError).bytes ?? 0 }) : error;
  } finally {
    socket.off('close', onClose);
    reading.giveBack(before);
    if (from !== undefined) engine().release(from);
  }
}
