/** How the bytes of a file are sent. */

/**
 * How the bytes of a file are sent to the target.
 * - `'auto'`: chosen by size and target, from measurements.
 * - `'sendfile'`: sendfile(2). No copy.
 * - `'splice'`: splice(2) into a pipe and out of it. No copy.
 * - `'mmap'`: sendmsg(2) from a mapping of the file. One copy, head and file in one call.
 * - `'read-write'`: pread(2) into a buffer, sendmsg(2) from it. Two copies; works everywhere.
 * - `'vmsplice'`: vmsplice(2) of a mapping into a pipe, splice(2) out of it. No copy.
 *
 * If a file system or a target does not support the method, `'read-write'` is used; the result names the method that was used.
 */
export type Method = 'auto' | 'sendfile' | 'splice' | 'mmap' | 'read-write' | 'vmsplice';

/** All methods. A test compares them with those of the native binding. */
export const METHODS = Object.keys({
  auto: true,
  sendfile: true,
  splice: true,
  mmap: true,
  'read-write': true,
  vmsplice: true,
} satisfies Record<Method, true>) as readonly Method[];

/**
 * How the bytes of a response were sent: a method of the native engine; `'stream'`, a Node stream (TLS, HTTP/2, `inject()`, a
 * compressor, all responses on other platforms than Linux); `'none'`, no bytes (HEAD, 304, empty files).
 */
export type ResponseMethod = Exclude<Method, 'auto'> | 'stream' | 'none';
