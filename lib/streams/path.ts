/**
 * Decodes and checks the path of a request, and returns the path relative to a root. The counterpart of
 * `crates/http/src/path.rs`; a test compares the two.
 *
 * The check is lexical and happens before any file is opened. Paths that are not in normal form are refused, not normalized: routes
 * and access checks were matched against the path as it was sent.
 */
import { isUtf8 } from 'node:buffer';

/** Maximum length of a segment in bytes: `NAME_MAX`, limits.h(0p). */
export const MAX_SEGMENT = 255;
/** Maximum length of a decoded path in bytes: `PATH_MAX`, limits.h(0p). */
export const MAX_PATH = 4096;

/**
 * Which percent escapes are decoded. `'decode-uri'`: as `decodeURI` of ECMAScript (escapes of `; / : @ & = + $ ,` are kept), and `%23`
 * and `%3F`, as find-my-way does before it matches a route. `'full'`: all but `%2F`.
 */
export type PathRules = 'decode-uri' | 'full';

/** The reason why a path is refused. */
export type PathError =
  | 'dot segment in path'
  | 'empty segment in path'
  | 'backslash in path'
  | 'NUL in path'
  | 'malformed percent escape in path'
  | 'path too long';

/** A decoded and checked path relative to a root. */
export class RequestPath {
  /** Without leading and trailing slash; empty for the root itself. */
  readonly relative: string;
  /** The path ends with a slash: it can only be a directory. */
  readonly wantsDirectory: boolean;

  private constructor(relative: string, wantsDirectory: boolean) {
    this.relative = relative;
    this.wantsDirectory = wantsDirectory;
  }

  /** Checks a decoded name, such as the argument of `sendFile(name)`. `%` has no special meaning. */
  static from(decoded: string): RequestPath | PathError {
    // Lone surrogates become U+FFFD.
    const name = decoded.replace(/\p{Surrogate}/gu, '\ufffd');
    let body = name.startsWith('/') ? name.slice(1) : name;
    if (body.endsWith('/')) body = body.slice(0, -1);
    // A single slash remains of the path `//`.
    if (name.length > 1 && body === '') return 'empty segment in path';
    return checkSegments(body) ?? new RequestPath(body, name.endsWith('/'));
  }

  /** Whether a segment begins with a dot. */
  get hasDotfile(): boolean {
    return this.relative.startsWith('.') || this.relative.includes('/.');
  }

  /** Whether the last segment has an extension according to `path.extname` of Node: `a.` has one, `.a` has none. */
  get hasExtension(): boolean {
    const name = this.relative.slice(this.relative.lastIndexOf('/') + 1);
    return name.lastIndexOf('.') > 0;
  }
}

/** Decodes and checks the path of a request target, without the query. The leading slash is optional. */
export function decode(raw: string, rules: PathRules): RequestPath | PathError {
  if (!raw.includes('%')) return RequestPath.from(raw);
  const bytes = Buffer.from(raw);
  let length = 0;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at] as number;
    if (byte === PERCENT) {
      const value = escaped(bytes, at);
      if (value === undefined) return 'malformed percent escape in path';
      if (!staysEncoded(value, rules)) {
        // In place: the output is never longer than the input.
        bytes[length] = value;
        length += 1;
        at += 2;
        continue;
      }
    }
    bytes[length] = byte;
    length += 1;
  }
  const decoded = bytes.subarray(0, length);
  return isUtf8(decoded) ? RequestPath.from(decoded.toString()) : 'malformed percent escape in path';
}

const PERCENT = 0x25;

function escaped(bytes: Buffer, at: number): number | undefined {
  const digits = bytes.toString('latin1', at + 1, at + 3);
  return /^[\da-f]{2}$/i.test(digits) ? Number.parseInt(digits, 16) : undefined;
}

/** ECMA-262 `decodeURI`: the escapes of uriReserved and `#` are preserved. */
function staysEncoded(byte: number, rules: PathRules): boolean {
  return (rules === 'full' ? '/' : ';/:@&=+$,').includes(String.fromCharCode(byte));
}

function checkSegments(body: string): PathError | undefined {
  if (body.includes('\0')) return 'NUL in path';
  if (body.includes('\\')) return 'backslash in path';
  if (body === '') return undefined;
  let tooLong = Buffer.byteLength(body) > MAX_PATH;
  for (const segment of body.split('/')) {
    if (segment === '') return 'empty segment in path';
    if (segment === '.' || segment === '..') return 'dot segment in path';
    tooLong ||= Buffer.byteLength(segment) > MAX_SEGMENT;
  }
  return tooLong ? 'path too long' : undefined;
}
