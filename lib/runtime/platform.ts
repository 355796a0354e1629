/** Where we are. Asked once, when the first module that needs it is loaded. */
import { requireNative } from './native.js';

/**
 * Whether this is the platform of the native part. Elsewhere static serving goes through Node streams and everything else is
 * `ERR_ZEROSEND_UNSUPPORTED`; on Linux without its native part everything is, for to be slow without a word would be a trap.
 */
export const IS_LINUX: boolean = process.platform === 'linux';

/** Throws `ERR_ZEROSEND_UNSUPPORTED` elsewhere: for what needs nothing native, but files that only Linux has. */
export function requireLinux(): void {
  if (!IS_LINUX) requireNative();
}
