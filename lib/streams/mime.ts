/**
 * Content type by file extension, with charset, as in `@fastify/send`. The counterpart of
 * `crates/http/src/mime.rs`, whose table is generated from the same package; a test compares the two.
 */
import { createRequire } from 'node:module';

import { afterLast } from './text.js';

// `require`, because the package has no type declarations.
const mime = createRequire(import.meta.url)('mime') as { getType(extension: string): string | null };

/** The default type. */
const DEFAULT_TYPE = 'application/octet-stream';

/** Types that get a charset: prefixes, and complete types. */
const TEXT = ['text/', 'application/javascript', 'application/json'];

/** The content type of a path, by the extension of its last segment. `.html` is a name without an extension. */
export function contentType(path: string): string {
  const name = afterLast(path, '/');
  const dot = name.lastIndexOf('.');
  const extension = name.slice(dot + 1);
  // Lower case can turn a non-ASCII character into ASCII (U+212A, Kelvin sign).
  const type = dot > 0 && !/[^\x20-\x7e]/.test(extension) ? mime.getType(extension) : null;
  if (type === null) return DEFAULT_TYPE;
  return TEXT.some((prefix) => type.startsWith(prefix)) ? `${type}; charset=utf-8` : type;
}
