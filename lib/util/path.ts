/** Paths of files in arguments. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { invalid } from './errors.js';

/** The absolute path of a file. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. */
export function resolveFile(file: string | URL): string {
  const name = file instanceof URL && file.protocol === 'file:' ? fileURLToPath(file) : file;
  if (typeof name !== 'string' || name === '' || name.includes('\0')) {
    throw invalid('path', file, 'a path without NUL bytes, or a file: URL');
  }
  return path.resolve(name);
}
