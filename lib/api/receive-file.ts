/** `receiveFile`: from a socket or pipe into a file, without a copy in user space. */
import type { Socket } from 'node:net';

import { descriptor } from '../node/node-internals.js';
import { StoppedReading } from '../node/socket-reading.js';
import { connected, within } from '../runtime/bounds.js';
import { driven } from '../runtime/deliver.js';
import { checkOptions, type TransferResult } from '../runtime/delivery-options.js';
import { engine, openHandle } from '../runtime/engine.js';
import { checkSource } from '../runtime/peer.js';
import { inOrder, type Queues } from '../runtime/transfer-queue.js';
import { aborted, failure, invalid, type ZerosendError } from '../util/errors.js';
import { checkBytes, type FileSource, nameFile } from '../util/options.js';

/** A plain `net.Socket` (TCP or Unix), or a descriptor of a socket, pipe or file. */
export type ReceiveSource = Socket | number;

export interface ReceiveFileOptions {
  /** Number of bytes. Default: until the source ends. */
  length?: number | undefined;
  /**
   * Offset in the file of the first byte, at most the size of the file. Bytes before it stay; bytes after it are overwritten
   * as far as bytes are received. A missing file is created, an existing file is not truncated; the position of a descriptor is
   * neither used nor moved. Default: see {@link receiveFile}. To resume after an error: the previous offset plus `error.bytes`.
   */
  offset?: number | undefined;
  /** Starts at the end of the file. Default false. */
  append?: boolean | undefined;
  /**
   * Milliseconds without a received byte after which it fails with `ERR_ZEROSEND_TIMEOUT`, whether it waits for the file to be
   * opened or written, for the sender, or for an earlier transfer from the same source. Default 0: no limit.
   */
  timeout?: number | undefined;
  /** Aborts at once. Received bytes stay in the file; `error.bytes` is their number. */
  signal?: AbortSignal | undefined;
  /** Called with the bytes received so far, at most every 50 ms, and once at the end. */
  onProgress?: ((bytes: number) => void) | undefined;
  /** Maximum of bytes received in one turn before other transfers run, 1 to 2^30. Default 1 MiB. */
  chunkSize?: number | undefined;
}

const incoming: Queues = new Map();

const WAITING = 'an earlier transfer from the same source makes no progress';
const CONNECTING = 'the source socket is not connected';
const OPENING = 'the target file cannot be opened: its storage is too slow or hangs';

/**
 * Receives into a file through a pipe, by splice(2). A path is created or truncated, unless `offset` or `append` is given; a
 * descriptor or `FileHandle` is written to from its position, which moves. (The position of a file opened with `'r+'` is 0:
 * without `offset` or `append` its bytes are overwritten from there.)
 *
 * The socket does not emit data meanwhile. It resumes at the end, and then emits bytes received beyond `length`. Bytes that Node
 * has read already are written first. If the file cannot be opened or an argument is invalid, the socket emits all of them.
 *
 * Rejects with `ERR_ZEROSEND_TRUNCATED` when the source ends before `length` bytes, `ERR_ZEROSEND_NOT_REGULAR_FILE` for a
 * target that is not a regular file, `ERR_ZEROSEND_OUT_OF_RANGE` for an `offset` beyond its end,
 * `ERR_ZEROSEND_INVALID_ARGUMENT` for a target opened with O_APPEND, for a socket with an encoding (`setEncoding`), and for the
 * socket of an HTTP request, whose bytes Node's parser reads (after `'upgrade'` and `'connect'` it is allowed),
 * `ERR_ZEROSEND_BUSY` for a socket that a relay or splitter reads, and otherwise as `sendFile`. Received bytes stay in the file;
 * `error.bytes` is their number.
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
      'offset and append cannot be combined; append starts at the end of the file',
    );
  }
  const name = nameFile('target', target);
  if (signal?.aborted) throw aborted(signal);

  // Duplicated before anything is awaited: later the number may refer to another file.
  const from = typeof source === 'number' ? engine().duplicateDescriptor(source) : undefined;
  try {
    const start = offset === undefined ? {} : { offset };
    const opening = openHandle((number) => engine().openSink(number, { ...name, ...start, append }));
    const socket = typeof source === 'number' ? undefined : { name: 'source', socket: source };
    const bounds = { signal, timeout: options.timeout, socket };
    return await inOrder(incoming, source, { ...bounds, reason: WAITING }, async (onMoved) => {
      if (signal?.aborted) throw aborted(signal);
      const sink = () => within(opening.handle, { ...bounds, reason: OPENING }, opening.cancel);
      if (from === undefined) return await fromSocket(source as Socket, sink, options, onMoved);
      const opened = await sink();
      return await driven(options, onMoved, (number, drive) =>
        engine().receive(opened, from, number, length, undefined, drive),
      );
    }).finally(() => {
      // If this ended before the file was opened or used, the file is closed.
      opening.cancel();
      opening.handle.then(
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
  onMoved: () => void,
): Promise<TransferResult> {
  const { signal, timeout } = options;
  const closed = () => failure('ERR_ZEROSEND_CLOSED', 'the source socket was closed before all bytes were received');
  checkSource('source', socket);
  let from = socket.connecting ? undefined : engine().duplicateDescriptor(descriptor(socket));
  const reading = new StoppedReading(socket);
  let initialBytes: Buffer | undefined;
  let closedEarly = false;
  let onClose = () => {};
  try {
    await within(connected(socket, closed), { signal, timeout, reason: CONNECTING }, () => {});
    const sink = await opened();
    from ??= engine().duplicateDescriptor(descriptor(socket));
    const source = from;
    return await driven(
      options,
      onMoved,
      (number, drive) => {
        initialBytes = reading.take(options.length);
        engine().receive(sink, source, number, options.length, initialBytes, drive);
        initialBytes = undefined;
      },
      (cancel) => {
        onClose = () => {
          // After the end of the stream, a close loses no bytes.
          if (socket.readableEnded) return;
          closedEarly = true;
          cancel();
        };
        socket.once('close', onClose);
      },
    );
  } catch (error) {
    throw closedEarly ? Object.assign(closed(), { bytes: (error as ZerosendError).bytes ?? 0 }) : error;
  } finally {
    socket.off('close', onClose);
    reading.restore(initialBytes);
    if (from !== undefined) engine().release(from);
  }
}
