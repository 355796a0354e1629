/** `receiveFile`: from a socket or pipe into a file, without a trip through user space. */
import type { Socket } from 'node:net';

import { within } from './bounds.js';
import { checkOptions, checkPeer, driven, inOrder, type Queues, type TransferResult } from './deliver.js';
import { engine, openToken } from './engine.js';
import { aborted, failure, type ZerosendError } from './errors.js';
import { descriptor, takeReading } from './internals.js';
import { checkBytes, type FileSource, nameFile } from './options.js';

/** A plain `net.Socket` (TCP or Unix), or a descriptor of a socket, pipe or file. */
export type ReceiveSource = Socket | number;

export interface ReceiveFileOptions {
  /** Number of bytes. Default: all until the source ends. */
  length?: number | undefined;
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
const OPENING = 'the target file is not opened: its storage is too slow or hangs';

/**
 * Receives into a file, through a pipe: splice(2) twice. A path is made or emptied; a descriptor or `FileHandle` is
 * written to from its position on, which moves on.
 *
 * A socket's own reading is stopped meanwhile, and goes on at the end: what came beyond `length` is then read from it as
 * usual. Bytes that Node had read before come first. Not for the socket of an HTTP request, whose bytes Node's parser
 * takes itself (after `'upgrade'` and `'connect'` it is fine).
 *
 * Rejects with `ERR_ZEROSEND_TRUNCATED` when the source ends before `length` bytes, `ERR_ZEROSEND_NOT_REGULAR_FILE` for a
 * target that is no regular file, `ERR_ZEROSEND_INVALID_ARGUMENT` for one opened for appending, and otherwise as
 * `sendFile`. The file keeps what had come: `error.bytes`.
 */
export async function receiveFile(
  source: ReceiveSource,
  target: FileSource,
  options: ReceiveFileOptions = {},
): Promise<TransferResult> {
  checkPeer('source', source);
  const { length, signal } = options;
  checkOptions(options);
  checkBytes('length', length);
  const name = nameFile('target', target);
  const [path, fd] = 'path' in name ? [name.path, undefined] : [undefined, name.fd];
  if (signal?.aborted) throw aborted(signal);

  // Numbers are duplicated now, before anything is waited for.
  const from = typeof source === 'number' ? engine().holdTarget(source) : undefined;
  try {
    const opening = openToken((number) => engine().openSink(number, path, fd));
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
  const closed = () => failure('ERR_ZEROSEND_CLOSED', 'the source socket was closed before all was received');
  if (socket.destroyed) throw closed();
  const { before, giveBack } = takeReading(socket, options.length);
  let gone = false;
  let onClose = () => {};
  try {
    const sink = await opened();
    if (socket.destroyed) throw closed();
    const from = engine().holdTarget(descriptor(socket));
    return await driven(
      options,
      moved,
      (number, drive) => engine().receive(sink, from, number, options.length, before, drive),
      (cancel) => {
        onClose = () => {
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
    giveBack();
  }
}
