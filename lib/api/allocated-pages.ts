/** Memory whose pages the kernel takes as they are: `allocPages` and `sendPages`. */
import { constants } from 'node:buffer';
import type { SendingOptions } from '#native';
import { deliver } from '../runtime/deliver.js';
import type { DeliveryOptions, TransferResult } from '../runtime/delivery-options.js';
import { engine } from '../runtime/engine.js';
import { checkDelivery, type SendTarget } from '../runtime/peer.js';
import { failure, invalid } from '../util/errors.js';
import { unshared } from '../util/options.js';

export interface SendPagesOptions extends DeliveryOptions {
  /**
   * `true`: the pages themselves are given to the kernel, nothing is copied, and the memory is gone from JavaScript at the
   * call: its ArrayBuffer is detached, every view of it has length 0. Only for memory of {@link allocPages}.
   *
   * `false`, the default: the bytes are copied at the call, in one go, and the buffer, of whatever kind, is the caller's
   * again when `sendPages` returns its promise.
   */
  gift?: boolean | undefined;
}

/**
 * Page-aligned, zeroed memory of `bytes` (1 up), for {@link sendPages} and `vmsplice` with `gift`.
 *
 * It is mapped, not taken from an allocator (mmap(2), `MAP_ANONYMOUS`), so that pages which the kernel still reads after
 * they were given never become anybody else's memory. Whole pages are used: 4,096 bytes at least.
 *
 * Throws `ERR_ZEROSEND_OUT_OF_RANGE`, `ENOMEM`.
 */
export function allocPages(bytes: number): Buffer {
  if (typeof bytes !== 'number') throw invalid('bytes', bytes, 'an integer number of bytes');
  if (!Number.isInteger(bytes) || bytes < 1 || bytes > constants.MAX_LENGTH) {
    throw failure('ERR_ZEROSEND_OUT_OF_RANGE', `invalid bytes ${bytes}: use 1 to ${constants.MAX_LENGTH}`);
  }
  return Buffer.from(engine().allocPages(bytes), 0, bytes);
}

/**
 * Sends the bytes of `buffer` through a pipe into `target`: vmsplice(2), then splice(2). The kernel refers to the pages
 * until the receiver has the bytes, which may be long after the promise has been fulfilled.
 *
 * So JavaScript never has pages that the kernel may still read. With `gift` they are moved out of it. Without, a copy in
 * pages of its own is sent: when the kernel lets go of pages cannot be known (acknowledged bytes may still lie unread in
 * a receiver on the same machine), so they could never be given back.
 *
 * Order, cancel, progress and errors are those of `sendFile`. `ERR_ZEROSEND_INVALID_ARGUMENT` for a gift that is not of
 * {@link allocPages}, or was given before. A gift that fails or is cancelled is gone all the same.
 */
export async function sendPages(
  target: SendTarget,
  buffer: Uint8Array,
  options: SendPagesOptions = {},
): Promise<TransferResult> {
  checkDelivery(target, options);
  const { gift = false, cork } = options;
  if (typeof gift !== 'boolean') throw invalid('gift', gift, 'a boolean');
  if (!(buffer instanceof Uint8Array)) throw invalid('buffer', buffer, 'a Buffer or Uint8Array');
  const sending: SendingOptions = { method: 'vmsplice' };
  if (cork !== undefined) sending.cork = cork;
  return deliver(target, options, () =>
    gift
      ? engine().openGift(giftable(buffer), buffer.byteOffset, buffer.byteLength, sending)
      : engine().openCopy(unshared(buffer), sending),
  );
}

/** The memory behind a view, for the binding to take, if it is what it must be. */
export function giftable(view: Uint8Array): ArrayBuffer {
  if (!(view.buffer instanceof ArrayBuffer)) {
    throw invalid('buffer', view.buffer, 'memory of allocPages; shared memory cannot be given');
  }
  return view.buffer;
}
