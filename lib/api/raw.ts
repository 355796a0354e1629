/**
 * Single system calls. Each function makes one call that does not wait, and returns the number of bytes.
 *
 * `null` is `EAGAIN`: the source is empty, the target is full, or the bytes of a file are not in the page cache. In the last
 * case read-ahead was started. Try again when the socket is writable or readable, or later.
 *
 * Other errnos are thrown, with `code`, `errno` and `syscall`. Combinations for which the kernel fails with a bare `EINVAL` are
 * checked before the call: `ERR_ZEROSEND_INVALID_ARGUMENT`, and the message names the rule.
 */
import type { FileHandle } from 'node:fs/promises';
import { Socket } from 'node:net';

import { descriptor } from '../node/node-internals.js';
import { engine } from '../runtime/engine.js';
import { failure, invalid } from '../util/errors.js';
import { checkBytes, isDescriptor, unshared } from '../util/options.js';
import { giftable } from './allocated-pages.js';
import { Pipe } from './pipe.js';

/**
 * A source or target of a single call: a descriptor, a `FileHandle`, a {@link Pipe} (its read or write end is used), or a
 * `net.Socket`. The call is not coordinated with the socket's own reads and writes: pause it and do not write to it meanwhile.
 */
export type RawEnd = number | FileHandle | Pipe | Socket;

/** Bytes moved, or `null` for `EAGAIN`. */
export type Moved = number | null;

export interface SpliceOptions {
  /** Offset to read at, for a file. Default: its position, which moves. */
  fromOffset?: number | undefined;
  /** Offset to write at, for a file. Default: its position, which moves. */
  toOffset?: number | undefined;
  /** `SPLICE_F_MORE`: more bytes follow at once. Default false. */
  more?: boolean | undefined;
  /** `SPLICE_F_MOVE`, a hint. Default false. */
  move?: boolean | undefined;
}

/** One splice(2) of up to `length` bytes. `from` or `to` must be a pipe. 0: the source ended. */
export function splice(from: RawEnd, to: RawEnd, length: number, options: SpliceOptions = {}): Moved {
  const { fromOffset, toOffset, more = false, move = false } = options;
  checkLength(length);
  checkBytes('fromOffset', fromOffset);
  checkBytes('toOffset', toOffset);
  checkFlag('more', more);
  checkFlag('move', move);
  const call = { from: readable('from', from), to: writable('to', to), length, more, move };
  return engine().splice({
    ...call,
    ...(fromOffset === undefined ? {} : { fromOffset }),
    ...(toOffset === undefined ? {} : { toOffset }),
  });
}

/** One tee(2): copies up to `length` bytes from a pipe into another without consuming them. 0: the source ended. */
export function tee(from: RawEnd, to: RawEnd, length: number): Moved {
  checkLength(length);
  return engine().tee(readable('from', from), writable('to', to), length);
}

export interface VmspliceOptions {
  /**
   * `true`: the pages are passed to the kernel, and the buffers are detached, as with `sendPages`. Each buffer must come from
   * another call of `allocPages`. All bytes or none: `null` when the pipe is not empty, an error when its capacity is too
   * small. `false`, the default: a copy of the bytes is put into the pipe, as many as fit.
   */
  gift?: boolean | undefined;
}

/** One vmsplice(2): puts references to the pages of up to 16 buffers, or to a copy of them, into a pipe. */
export function vmsplice(
  pipe: RawEnd,
  buffers: Uint8Array | readonly Uint8Array[],
  options: VmspliceOptions = {},
): Moved {
  const { gift = false } = options;
  checkFlag('gift', gift);
  const all = buffers instanceof Uint8Array ? [buffers] : buffers;
  if (!Array.isArray(all) || !all.every((buffer) => buffer instanceof Uint8Array) || all.length > 16) {
    throw invalid('buffers', buffers, 'a Uint8Array or an array of up to 16 of them');
  }
  const fd = writable('pipe', pipe);
  if (!gift) return engine().vmspliceCopy(fd, all.map(unshared));
  const gifts = all.map((view) => ({ buffer: giftable(view), offset: view.byteOffset, length: view.byteLength }));
  if (new Set(gifts.map(({ buffer }) => buffer)).size < gifts.length) {
    throw invalid('buffers', buffers, 'buffers of different allocPages calls when gift is true');
  }
  return engine().vmspliceGift(fd, gifts);
}

/** One sendfile(2): sends up to `length` bytes of a file from `offset` on to `out`. 0: `offset` is at the end of the file. */
export function sendfile(out: RawEnd, file: RawEnd, offset: number, length: number): Moved {
  checkBytes('offset', offset);
  if (offset === undefined) throw invalid('offset', offset, 'an integer number of bytes');
  checkLength(length);
  return engine().sendfile(writable('out', out), readable('in', file), offset, length);
}

const readable = (name: string, end: RawEnd): number => descriptorOf(name, end, 'readFd');
const writable = (name: string, end: RawEnd): number => descriptorOf(name, end, 'writeFd');

/** The descriptor of a source or target. Valid only during the call. */
function descriptorOf(name: string, end: RawEnd, side: 'readFd' | 'writeFd'): number {
  const fd = end instanceof Pipe ? end[side] : end instanceof Socket ? descriptor(end) : plainDescriptor(end);
  if (fd === -1 && typeof end === 'object' && end !== null) {
    throw failure('ERR_ZEROSEND_CLOSED', `\`${name}\` is closed`);
  }
  if (!isDescriptor(fd)) throw invalid(name, end, 'a descriptor, a FileHandle, a Pipe or a net.Socket');
  return fd;
}

function plainDescriptor(end: number | FileHandle): unknown {
  return typeof end === 'number' ? end : end?.fd;
}

function checkLength(length: number): void {
  checkBytes('length', length);
  if (length === undefined) throw invalid('length', length, 'an integer number of bytes');
}

function checkFlag(name: string, value: boolean): void {
  if (typeof value !== 'boolean') throw invalid(name, value, 'a boolean');
}
