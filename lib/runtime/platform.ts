/** The platform. */
import { requireNative } from './native.js';

/**
 * Whether the native binding is used. On other platforms static serving uses Node streams and everything else fails with
 * `ERR_ZEROSEND_UNSUPPORTED`. On Linux a missing binding is always an error: silently falling back to streams would hide the
 * problem.
 */
export const IS_LINUX: boolean = process.platform === 'linux';

/** Throws `ERR_ZEROSEND_UNSUPPORTED` on other platforms: for functions that use files of Linux, but not the binding. */
export function requireLinux(): void {
  if (!IS_LINUX) requireNative();
}
