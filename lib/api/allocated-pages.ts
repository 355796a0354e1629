/** Sending memory by vmsplice(2): `allocPages` and `sendPages`. */
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
   * `true`: the kernel gets the pages themselves, without a copy. The call detaches the ArrayBuffer, so that every view of it
   * has length 0. Only for memory from {@link allocPages}.
   *
   * `false`, the default: the bytes are copied during the call. The buffer can be of any kind, and be reused when `sendPages`
   * has returned its promise.
   */
  gift?: boolean | undefined;
}

/**
 * Allocates page-aligned memory of `bytes` (1 or more) zeros, for {@link sendPages} and `vmsplice` with `gift`.
 *
 * It is mapped (mmap(2), `MAP_ANONYMOUS`) and never returned to an allocator, so that no other code reuses pages that the kernel
 * still reads. It takes whole pages, at least 4,096 bytes.
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
 * Sends the bytes of `buffer` through a pipe to `target`, by vmsplice(2) and splice(2). The kernel refers to the pages until the
 * receiver has the bytes, which may be long after the promise was fulfilled.
 *
 * For that reason JavaScript must not change pages that were sent. With `gift` it loses them. Without `gift` a copy in separate
 * pages is sent: the kernel does not report when it no longer needs the pages (acknowledged bytes may still be unread in a
 * receiver on the same machine), so they could never be returned.
 *
 * Order, cancellation, progress and errors are those of `sendFile`. `ERR_ZEROSEND_INVALID_ARGUMENT` for a gift that is not from
 * {@link allocPages} or was given before. A gift is lost also when sending it fails or is cancelled.
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

/** The memory of a view, which must not be shared. The binding checks that it is from {@link allocPages}. */
export function giftable(view: Uint8Array): ArrayBuffer {
  if (!(view.buffer instanceof ArrayBuffer)) {
    throw invalid('buffer', view.buffer, 'memory from allocPages; a SharedArrayBuffer cannot be a gift');
  }
  return view.buffer;
}
