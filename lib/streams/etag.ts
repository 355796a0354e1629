/**
 * Entity tags, RFC 9110 section 8.8.3: computing, comparing and parsing them. The counterpart of
 * `crates/http/src/etag.rs`; a test compares the two.
 */
import type { Conformance } from './conformance.js';
import { splitOnce, trimOf, trimStartOf } from './text.js';

/** Milliseconds since 1970 as returned by `stat.mtime.getTime()`: rounded to the nearest, in double arithmetic. */
export function nodeMtimeMs(mtimeNs: bigint): number {
  const nanos = ((mtimeNs % BILLION) + BILLION) % BILLION;
  const seconds = (mtimeNs - nanos) / BILLION;
  return Math.floor(Number(seconds) * 1e3 + Number(nanos) / 1e6 + 0.5);
}

const BILLION = 1_000_000_000n;

/** `W/"<size>-<mtime in ms>"`, both in lower-case hexadecimal: the same tag as `@fastify/send`. */
export function weak(size: number, mtimeMs: number): string {
  return `W/"${size.toString(16)}-${mtimeMs.toString(16)}"`;
}

/** `"<size>-<mtime in ns>-<ctime in ns>"`, all in lower-case hexadecimal, times as 64 bits. */
export function strong(size: number, mtimeNs: bigint, ctimeNs: bigint): string {
  const hex = (ns: bigint) => BigInt.asUintN(64, ns).toString(16);
  return `"${size.toString(16)}-${hex(mtimeNs)}-${hex(ctimeNs)}"`;
}

/** Weak comparison: the opaque parts are equal. RFC 9110 section 8.8.3.2. */
export function weakEqual(a: string, b: string): boolean {
  return opaque(a) === opaque(b);
}

/** Strong comparison: both are equal and strong. RFC 9110 section 8.8.3.2. */
export function strongEqual(a: string, b: string): boolean {
  return a === b && !a.startsWith('W/');
}

/** The tag without `W/`. */
export function opaque(tag: string): string {
  return tag.startsWith('W/') ? tag.slice(2) : tag;
}

/**
 * The tags of an `If-Match` or `If-None-Match` list. With `rfc9110`, commas inside quotes belong to the tag and
 * anything else is skipped; `@fastify/send` splits at every comma and trims spaces.
 */
export function* list(header: string, conformance: Conformance): Generator<string> {
  if (conformance === 'fastify-static') {
    for (const item of header.split(',')) {
      const tag = trimOf(item, ' ');
      if (tag !== '') yield tag;
    }
    return;
  }
  for (let rest = header; rest !== ''; ) {
    const item = trimStartOf(rest, ' \t,');
    const found = splitTag(item);
    if (found === undefined) {
      rest = splitOnce(item, ',')?.[1] ?? '';
    } else {
      yield found.tag;
      rest = found.rest;
    }
  }
}

/** A tag at the start of `text` that is followed by a comma or the end. */
function splitTag(text: string): { tag: string; rest: string } | undefined {
  const begin = text.startsWith('W/"') ? 3 : 1;
  if (text[begin - 1] !== '"') return undefined;
  const end = text.indexOf('"', begin);
  if (end < 0) return undefined;
  const rest = trimStartOf(text.slice(end + 1), ' \t');
  return rest === '' || rest.startsWith(',') ? { tag: text.slice(0, end + 1), rest } : undefined;
}
