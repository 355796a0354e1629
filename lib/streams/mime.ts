/**
 * Content type by file extension, charset included, as `@fastify/send` has it. The counterpart of
 * `crates/http/src/mime.rs`, whose table is made from the same package; the comparison test holds the two together.
 */
import { createRequire } from 'node:module';

import { afterLast } from './text.js';

// Through `require`, for the package has no types of its own.
const mime = createRequire(import.meta.url)('mime') as { getType(extension: string): string | null };

/** The type of a file nothing is known about. */
const DEFAULT_TYPE = 'application/octet-stream';

/** What gets a charset: prefixes that are followed by something, or are the whole type. */
const TEXT = ['text/', 'application/javascript', 'application/json'];

/** The content type of a path, by the extension of its last segment. `.html` is a name and has no extension. */
export function contentType(path: string): string {
  const name = afterLast(path, '/');
  const dot = name.lastIndexOf('.');
  const extension = name.slice(dot + 1);
  // What is not ASCII has no type, but may turn into ASCII when it is put in lower case (U+212A, the sign of Kelvin).
  const type = dot > 0 && !/[^\x20-\x7e]/.test(extension) ? mime.getType(extension) : null;
  if (type === null) return DEFAULT_TYPE;
  return TEXT.some((prefix) => type.startsWith(prefix)) ? `${type}; charset=utf-8` : type;
}
