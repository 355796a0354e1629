/**
 * A request path, decoded once and checked, as the relative path it names below a root. The counterpart of
 * `crates/http/src/path.rs`; the comparison test holds the two together.
 *
 * The check is lexical and comes before any file is opened: a path that has a second spelling is refused, never
 * normalised, because a router matched the first spelling and its guards with it.
 */
import { isUtf8 } from 'node:buffer';

/** Longest name of one segment in bytes: `NAME_MAX`, limits.h(0p). */
export const MAX_SEGMENT = 255;
/** Longest decoded path in bytes: `PATH_MAX`, limits.h(0p). */
export const MAX_PATH = 4096;

/**
 * Which percent escapes are decoded: as ECMAScript's `decodeURI` (escapes of `; / : @ & = + $ ,` stay as written, but `%23`
 * and `%3F` are decoded, as find-my-way does before it matches a route), or all but `%2F`.
 */
export type PathRules = 'decode-uri' | 'full';

/** Why a path names nothing, in words. */
export type PathError =
  | 'dot segment in path'
  | 'empty segment in path'
  | 'backslash in path'
  | 'NUL in path'
  | 'malformed percent escape in path'
  | 'path too long';

/** A decoded and checked path below a root. */
export class RequestPath {
  /** No slash at either end, empty for the root itself. */
  readonly relative: string;
  /** It ended in a slash: only a directory will do. */
  readonly wantsDirectory: boolean;

  private constructor(relative: string, wantsDirectory: boolean) {
    this.relative = relative;
    this.wantsDirectory = wantsDirectory;
  }

  /** Checks a name that is already decoded, such as the argument of `sendFile(name)`. A `%` in it is a plain `%`. */
  static from(decoded: string): RequestPath | PathError {
    // Half of a character is no character: what a file system is asked for is U+FFFD.
    const name = decoded.replace(/\p{Surrogate}/gu, '\ufffd');
    let body = name.startsWith('/') ? name.slice(1) : name;
    if (body.endsWith('/')) body = body.slice(0, -1);
    // A lone slash left over means that the path was `//`.
    if (name.length > 1 && body === '') return 'empty segment in path';
    return checkSegments(body) ?? new RequestPath(body, name.endsWith('/'));
  }

  /** A segment begins with a dot. */
  get hasDotfile(): boolean {
    return this.relative.startsWith('.') || this.relative.includes('/.');
  }

  /** The last segment has an extension in the sense of Node's `path.extname`: `a.` has one, `.a` has none. */
  get hasExtension(): boolean {
    const name = this.relative.slice(this.relative.lastIndexOf('/') + 1);
    return name.lastIndexOf('.') > 0;
  }
}

/** Decodes the path of a request target (no query) and checks it. It may or may not begin with its slash. */
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
        // In place: what is written is never longer than what was read.
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
