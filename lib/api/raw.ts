/**
 * Single system calls, for those who build their own. Each makes one call that does not wait, and returns its count.
 *
 * `null` is `EAGAIN`: the source has nothing now, the target takes nothing now, or the bytes of a file are not in the page
 * cache, in which case reading them has begun. Try again later: when the socket is writable or readable, or after a while.
 *
 * Every other errno is thrown, with `code`, `errno` and `syscall`; combinations that the kernel would answer with a bare
 * `EINVAL` are refused before the call, with `ERR_ZEROSEND_INVALID_ARGUMENT` and the rule.
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
 * An end of a raw call: a descriptor, a `FileHandle`, a {@link Pipe} (the end that fits is taken), or a `net.Socket`, with
 * whose own reading and writing nothing is coordinated here: pause it, and write nothing to it meanwhile.
 */
export type RawEnd = number | FileHandle | Pipe | Socket;

/** Bytes moved, or `null` for `EAGAIN`. */
export type Moved = number | null;

export interface SpliceOptions {
  /** Where to read in a file. Default: its own position, which moves on. */
  fromOffset?: number | undefined;
  /** Where to write in a file. Default: its own position, which moves on. */
  toOffset?: number | undefined;
  /** `SPLICE_F_MORE`: more bytes follow at once. Default false. */
  more?: boolean | undefined;
  /** `SPLICE_F_MOVE`, a hint. Default false. */
  move?: boolean | undefined;
}

/**
 * One splice(2): up to `length` bytes from one end to the other, one of which must be a pipe. 0: the source has ended.
 */
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

/** One tee(2): up to `length` bytes of one pipe are in the other too, and stay in the first. 0: the source has ended. */
export function tee(from: RawEnd, to: RawEnd, length: number): Moved {
  checkLength(length);
  return engine().tee(readable('from', from), writable('to', to), length);
}

export interface VmspliceOptions {
  /**
   * `true`: the pages are given away, and their memory is gone from JavaScript at the call, as with `sendPages`. Each
   * buffer must be of `allocPages`, each of another. All or nothing: `null` when the pipe is not empty, an error when it
   * has not enough room. `false`, the default: a copy of the bytes goes, as many as fit.
   */
  gift?: boolean | undefined;
}

/** One vmsplice(2): the bytes of up to 16 buffers into a pipe, by reference to pages that nobody else can change. */
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

/** One sendfile(2): up to `length` bytes of a file, from `offset` on, to `out`. 0: the file has no byte there. */
export function sendfile(out: RawEnd, file: RawEnd, offset: number, length: number): Moved {
  checkBytes('offset', offset);
  if (offset === undefined) throw invalid('offset', offset, 'an integer number of bytes');
  checkLength(length);
  return engine().sendfile(writable('out', out), readable('in', file), offset, length);
}

const readable = (name: string, end: RawEnd): number => number(name, end, 'readFd');
const writable = (name: string, end: RawEnd): number => number(name, end, 'writeFd');

/** The number of an end, good for the call it is used in. */
function number(name: string, end: RawEnd, side: 'readFd' | 'writeFd'): number {
  const fd = end instanceof Pipe ? end[side] : end instanceof Socket ? descriptor(end) : rawNumber(end);
  if (fd === -1 && typeof end === 'object' && end !== null) {
    throw failure('ERR_ZEROSEND_CLOSED', `\`${name}\` is closed`);
  }
  if (!isDescriptor(fd)) throw invalid(name, end, 'a descriptor, a FileHandle, a Pipe or a net.Socket');
  return fd;
}

function rawNumber(end: number | FileHandle): unknown {
  return typeof end === 'number' ? end : end?.fd;
}

function checkLength(length: number): void {
  checkBytes('length', length);
  if (length === undefined) throw invalid('length', length, 'an integer number of bytes');
}

function checkFlag(name: string, value: boolean): void {
  if (typeof value !== 'boolean') throw invalid(name, value, 'a boolean');
}
