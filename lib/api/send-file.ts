/** `sendFile` and `sendFiles`: send files, ranges of files and bytes to a socket or a descriptor, in one transfer. */

import type { PartOptions, SendingOptions } from '#native';
import { CachedFile } from '../cache/cached-file.js';
import { idOf } from '../cache/handles.js';
import { deliver } from '../runtime/deliver.js';
import type { DeliveryOptions, TransferResult } from '../runtime/delivery-options.js';
import { engine, openHandle, type PendingHandle } from '../runtime/engine.js';
import { checkDelivery, type SendTarget } from '../runtime/peer.js';
import { METHODS, type Method } from '../types/method.js';
import { failure, invalid } from '../util/errors.js';
import { checkBytes, type FileSource, nameFile, unshared } from '../util/options.js';

export type { SendTarget } from '../runtime/peer.js';
export type { FileSource } from '../util/options.js';

export interface SendFilesOptions extends DeliveryOptions {
  /** Default `'auto'`. */
  method?: Method | undefined;
  /** Bytes of the buffer of `'read-write'`, 4096 to 16777216. Default 131072. */
  bufferSize?: number | undefined;
}

export interface SendFileOptions extends SendFilesOptions {
  /** First byte to send. Default 0. To resume after an abort: the previous offset plus `error.bytes` minus the length of `head`. */
  offset?: number | undefined;
  /** Number of bytes. Default: to the end of the file. */
  length?: number | undefined;
  /** Bytes to send before the file, in the same packet if they fit. Strings are sent as UTF-8. */
  head?: Uint8Array | string | undefined;
}

/** The result. `bytes` includes the head. */
export type SendFileResult = TransferResult;

/** A part of `sendFiles`: bytes, which are copied at the call, or a file or a range of it. */
export type SendPart =
  | Uint8Array
  | {
      file: FileSource | CachedFile;
      /** First byte to send. Default 0. */
      offset?: number | undefined;
      /** Number of bytes. Default: to the end of the file. */
      length?: number | undefined;
    };

/** Each file holds a descriptor until the transfer ends. */
const MAX_FILES = 1024;

/**
 * Sends a file to a socket or descriptor, inside the kernel where the method allows it; see {@link Method}.
 *
 * Bytes that Node has queued for the socket are sent before; writes during the transfer are sent after it. A second
 * `sendFile` to the same target waits for the first. The socket stays open.
 *
 * Rejects, always with a `code`: `ERR_ZEROSEND_INVALID_ARGUMENT`, `ERR_ZEROSEND_OUT_OF_RANGE` (offset or length beyond
 * the file), `ERR_ZEROSEND_NOT_REGULAR_FILE`, the name of the errno for a file that cannot be opened or a closed connection
 * (`ENOENT`, `EACCES`, `EPIPE`, `ECONNRESET`), `ERR_ZEROSEND_CLOSED`, `ERR_ZEROSEND_TIMEOUT`, `ABORT_ERR`, and
 * `ERR_ZEROSEND_TRUNCATED` when the file was truncated during the transfer. `error.bytes` is the number of bytes sent.
 *
 * A truncated file is never mistaken for a complete one: after an error that leaves a part sent, the socket is reset. After
 * `ABORT_ERR` and `ERR_ZEROSEND_TIMEOUT` it stays open, so that you can resume from `error.bytes`; if you destroy it instead, it
 * is reset. A Unix socket cannot be reset: its peer sees a normal end, so announce the length there.
 */
export async function sendFile(
  target: SendTarget,
  source: FileSource | CachedFile,
  options: SendFileOptions = {},
): Promise<SendFileResult> {
  checkDelivery(target, options);
  const sending = checkSending(options);
  const { head } = options;
  const file = filePart('source', source, options.offset, options.length);
  const parts: PartOptions[] = [file];
  if (typeof head === 'string') parts.unshift({ bytes: Buffer.from(head) });
  else if (head instanceof Uint8Array) parts.unshift({ bytes: unshared(head) });
  else if (head !== undefined) throw invalid('head', head, 'a string or Uint8Array');
  return deliver(target, options, () => open(parts, sending));
}

/**
 * Sends bytes and files in order, as one transfer: heads, multipart bodies, batches. Adjacent bytes, and a small file after
 * them, are sent in one system call.
 *
 * All files are opened before the first byte is sent, so nothing is sent if one is missing; at most 1,024
 * (`ERR_ZEROSEND_LIMIT`). Otherwise as {@link sendFile}, with the same errors; `method` in the result is that of the last file.
 */
export async function sendFiles(
  target: SendTarget,
  parts: readonly SendPart[],
  options: SendFilesOptions = {},
): Promise<SendFileResult> {
  checkDelivery(target, options);
  const sending = checkSending(options);
  if (!Array.isArray(parts)) throw invalid('parts', parts, 'an array of Uint8Array and { file, offset?, length? }');
  const checked = parts.map((part: SendPart, at): PartOptions => {
    const name = `parts[${at}]`;
    if (part instanceof Uint8Array) return { bytes: unshared(part) };
    if (typeof part !== 'object' || part === null || part.file === undefined) {
      throw invalid(name, part, 'a Uint8Array or { file, offset?, length? }; for text, use Buffer.from(text)');
    }
    return filePart(`${name}.file`, part.file, part.offset, part.length, `${name}.`);
  });
  const files = checked.filter((part) => part.bytes === undefined).length;
  if (files > MAX_FILES) {
    throw failure('ERR_ZEROSEND_LIMIT', `parts has ${files} files; send at most ${MAX_FILES} in one transfer`);
  }
  return deliver(target, options, () => open(checked, sending));
}

/**
 * Divides `size` bytes into `count` consecutive ranges whose lengths differ by at most one byte, for a download over several
 * connections: one `sendFile(socket, file, range)` each. They can share an open file, because its position is not used.
 * Returns fewer ranges than `count` when there are fewer bytes, none for 0 bytes.
 *
 * Throws `ERR_ZEROSEND_OUT_OF_RANGE` unless `size` is an integer of at least 0 and `count` an integer of at least 1.
 */
export function sliceRanges(size: number, count: number): Array<{ offset: number; length: number }> {
  checkBytes('size', size);
  checkBytes('count', count);
  if (count < 1) throw failure('ERR_ZEROSEND_OUT_OF_RANGE', `invalid count ${count}: use 1 or more`);
  const slices = Math.min(size, count);
  const length = Math.floor(size / slices);
  const longer = size - length * slices;
  return Array.from({ length: slices }, (_, at) => ({
    offset: at * length + Math.min(at, longer),
    length: at < longer ? length + 1 : length,
  }));
}

function open(parts: PartOptions[], sending: SendingOptions): PendingHandle {
  return openHandle((number) => engine().open(number, parts, sending));
}

function checkSending(options: SendFilesOptions): SendingOptions {
  const { method = 'auto', bufferSize, cork } = options;
  if (!METHODS.includes(method)) throw invalid('method', method, `one of ${METHODS.join(', ')}`);
  if (bufferSize !== undefined && !(Number.isInteger(bufferSize) && bufferSize >= 4096 && bufferSize <= 2 ** 24)) {
    throw invalid('bufferSize', bufferSize, 'an integer number of bytes from 4096 to 16777216');
  }
  const sending: SendingOptions = { method };
  if (bufferSize !== undefined) sending.buffer = bufferSize;
  if (cork !== undefined) sending.cork = cork;
  return sending;
}

function filePart(
  name: string,
  file: FileSource | CachedFile,
  offset: number | undefined,
  length: number | undefined,
  prefix = '',
): PartOptions {
  checkBytes(`${prefix}offset`, offset);
  checkBytes(`${prefix}length`, length);
  const part: PartOptions = file instanceof CachedFile ? { cached: idOf(file) } : nameFile(name, file);
  if (offset !== undefined) part.offset = offset;
  if (length !== undefined) part.length = length;
  return part;
}
