/** Options and result of a transfer. */
import type { Method } from '../types/method.js';
import { invalid } from '../util/errors.js';

/** Options of sending and receiving. */
export interface DeliveryOptions {
  /**
   * Milliseconds without progress after which it fails with `ERR_ZEROSEND_TIMEOUT`, whether it waits for the file to be opened or
   * read, for the receiver, or for an earlier transfer to the same target (then without progress of that one). The message
   * names the cause. Default 0: no limit.
   */
  timeout?: number | undefined;
  /** Aborts at once, in every phase. `error.bytes` is the number of bytes sent before. */
  signal?: AbortSignal | undefined;
  /** Called with the bytes sent so far (head included), at most every 50 ms, and once at the end. */
  onProgress?: ((bytes: number) => void) | undefined;
  /**
   * Maximum of bytes sent in one turn before other transfers run, 1 to 2^30. Default 1 MiB. A larger value needs less CPU time
   * for each byte; a smaller one reduces the delay of the event loop and of other transfers.
   */
  chunkSize?: number | undefined;
  /**
   * Whether the kernel may delay a packet that is not full. Default: while the next call follows at once (`MSG_MORE`). `true`:
   * also until the end of each turn (`TCP_CORK`, tcp(7)). `false`: never.
   */
  cork?: boolean | undefined;
  /** Sets `TCP_NODELAY` (tcp(7)) on the target permanently. Default: unchanged. Unix sockets ignore it. */
  noDelay?: boolean | undefined;
}

/** The result of a transfer. */
export interface TransferResult {
  /** Bytes accepted by the kernel. */
  bytes: number;
  /** The method that was used. */
  method: Exclude<Method, 'auto'>;
  /** System calls made by zerosend, without the writes through Node's queue. */
  syscalls: number;
  /** Wall time in milliseconds, without waiting for earlier transfers. */
  durationMs: number;
}

/** Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. */
export function checkOptions(options: DeliveryOptions): void {
  const { timeout, signal, onProgress, chunkSize, cork, noDelay } = options;
  if (timeout !== undefined && !(typeof timeout === 'number' && timeout >= 0 && timeout <= 2 ** 31 - 1)) {
    throw invalid('timeout', timeout, 'a number of milliseconds from 0 to 2147483647');
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalid('signal', signal, 'an AbortSignal');
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw invalid('onProgress', onProgress, 'a function');
  }
  if (chunkSize !== undefined && !(Number.isInteger(chunkSize) && chunkSize >= 1 && chunkSize <= 2 ** 30)) {
    throw invalid('chunkSize', chunkSize, 'an integer number of bytes from 1 to 1073741824');
  }
  if (cork !== undefined && typeof cork !== 'boolean') throw invalid('cork', cork, 'a boolean');
  if (noDelay !== undefined && typeof noDelay !== 'boolean') throw invalid('noDelay', noDelay, 'a boolean');
}
