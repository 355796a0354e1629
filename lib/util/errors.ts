/** The errors of the TypeScript side. Those of the kernel come from the binding in the same shape. */

/** Codes of zerosend's own errors. Errors of the kernel carry the errno's name (`ENOENT`, `EPIPE`, ...) instead. */
export type ZerosendErrorCode =
  | 'ERR_ZEROSEND_INVALID_ARGUMENT'
  | 'ERR_ZEROSEND_OUT_OF_RANGE'
  | 'ERR_ZEROSEND_NOT_REGULAR_FILE'
  | 'ERR_ZEROSEND_TRUNCATED'
  | 'ERR_ZEROSEND_TIMEOUT'
  | 'ERR_ZEROSEND_CLOSED'
  | 'ERR_ZEROSEND_UNSUPPORTED'
  | 'ERR_ZEROSEND_LIMIT'
  | 'ERR_ZEROSEND_BUSY'
  | 'ERR_ZEROSEND_PEER_DIED'
  | 'ERR_ZEROSEND_CORRUPT'
  | 'ERR_ZEROSEND_INTERNAL';

/** What zerosend throws and rejects with. */
export interface ZerosendError extends Error {
  /** A {@link ZerosendErrorCode}, `ABORT_ERR`, or the name of an errno. */
  code: string;
  /** The negative errno, when a syscall failed. */
  errno?: number;
  /** The syscall that failed. */
  syscall?: string;
  /** The file it is about. */
  path?: string;
  /** Bytes that had been handed to the kernel when a transfer failed. */
  bytes?: number;
  /** Which end has failed, of a `relay` (`'a'`, `'b'`) or a splitter (`'source'`, `'sinks[0]'`, ...). */
  side?: string;
}

/** An error of our own. Wrong arguments are `TypeError`s and `RangeError`s, as Node's are. */
export function failure(code: ZerosendErrorCode, message: string, options?: ErrorOptions): ZerosendError {
  const Type =
    code === 'ERR_ZEROSEND_INVALID_ARGUMENT' ? TypeError : code === 'ERR_ZEROSEND_OUT_OF_RANGE' ? RangeError : Error;
  return Object.assign(new Type(message, options), { code });
}

/** The error of an option with a value that is not allowed, or of a required option that is missing. */
export function invalid(name: string, value: unknown, allowed: string): ZerosendError {
  const problem = value === undefined ? `missing ${name}` : `invalid ${name} ${show(value)}`;
  return failure('ERR_ZEROSEND_INVALID_ARGUMENT', `${problem}: use ${allowed}`);
}

/** What an aborted operation rejects with, as Node's own do. */
export function aborted(signal: AbortSignal): ZerosendError {
  const error = new Error('The operation was aborted', { cause: signal.reason });
  error.name = 'AbortError';
  return Object.assign(error, { code: 'ABORT_ERR' });
}

function show(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`;
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'object' && value !== null) return `an instance of ${value.constructor?.name ?? 'Object'}`;
  return String(value);
}
