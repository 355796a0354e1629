/** Errors thrown by TypeScript. Errors of the kernel come from the binding in the same form. */

/** Codes of zerosend's own errors. Errors of the kernel have the name of the errno (`ENOENT`, `EPIPE`, ...) instead. */
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

/** An error that zerosend throws or rejects with. */
export interface ZerosendError extends Error {
  /** A {@link ZerosendErrorCode}, `ABORT_ERR`, or the name of an errno. */
  code: string;
  /** The negative errno, if a system call failed. */
  errno?: number;
  /** The name of the system call that failed. */
  syscall?: string;
  /** The path of the file concerned. */
  path?: string;
  /** Bytes handed to the kernel before a transfer failed. */
  bytes?: number;
  /** The endpoint that failed, of a `relay` (`'a'`, `'b'`) or a splitter (`'source'`, `'sinks[0]'`, ...). */
  side?: string;
}

/** Makes an error. As in Node, invalid arguments are a `TypeError` or a `RangeError`. */
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

/** The error of an aborted operation, as Node makes it. */
export function aborted(signal: AbortSignal): ZerosendError {
  const error = new Error('The operation was aborted', { cause: signal.reason });
  error.name = 'AbortError';
  return Object.assign(error, { code: 'ABORT_ERR' });
}

function show(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`;
  if (typeof value === 'function') return '[Function]';
  if (Array.isArray(value)) return `[Array(${value.length})]`;
  if (typeof value === 'object' && value !== null) return `[${value.constructor?.name ?? 'Object'}]`;
  return String(value);
}
