/** Checks of arguments that several functions have: files, descriptors, integers. */
import type { FileHandle } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import { failure, invalid } from './errors.js';

/**
 * A file: a path, a `file:` URL, an open `FileHandle`, or a descriptor. Handles and descriptors stay open, and their position does
 * not change.
 */
export type FileSource = string | URL | FileHandle | number;

export function isDescriptor(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** 31;
}

/** Returns `value` if it is one of `allowed`. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. */
export function parseEnum<T extends string>(name: string, value: unknown, allowed: readonly T[]): T {
  if (allowed.includes(value as T)) return value as T;
  throw invalid(name, value, allowed.map((word) => `'${word}'`).join(', '));
}

/** Throws `ERR_ZEROSEND_INVALID_ARGUMENT` unless `value` is an integer from `min` to `max`. */
export function checkInteger(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw invalid(name, value, `an integer from ${min} to ${max}`);
  }
}

/**
 * `bytes`, or a copy of them if they are in a SharedArrayBuffer: native code must not read memory that other threads can
 * change at the same time.
 */
export function unshared<T extends Uint8Array>(bytes: T): T | Buffer {
  return bytes.buffer instanceof SharedArrayBuffer ? Buffer.from(bytes) : bytes;
}

/** Checks a number of bytes or a position: a safe integer from 0 up. */
export function checkBytes(name: string, value: number | undefined): void {
  if (value === undefined) return;
  if (typeof value !== 'number') throw invalid(name, value, 'an integer number of bytes');
  if (!Number.isSafeInteger(value) || value < 0) {
    throw failure(
      'ERR_ZEROSEND_OUT_OF_RANGE',
      `invalid ${name} ${value}: use an integer from 0 to ${Number.MAX_SAFE_INTEGER}`,
    );
  }
}

/** The path or descriptor of a file, for the binding. `name` is the name of the argument, for errors. */
export function nameFile(name: string, file: FileSource): { path: string } | { fd: number } {
  if (typeof file === 'string') {
    if (file.includes('\0')) throw Object.assign(invalid(name, file, 'a path without NUL bytes'), { path: file });
    return { path: file };
  }
  if (file instanceof URL) {
    if (file.protocol !== 'file:') throw invalid(name, file.href, 'a file: URL, a path, a FileHandle or a descriptor');
    return nameFile(name, fileURLToPath(file));
  }
  const fd = typeof file === 'number' ? file : file?.fd;
  if (typeof file === 'object' && fd === -1) {
    throw failure('ERR_ZEROSEND_CLOSED', 'the FileHandle is closed; open the file again');
  }
  if (!isDescriptor(fd)) throw invalid(name, file, 'a path, a file: URL, a FileHandle or a descriptor');
  return { fd };
}
