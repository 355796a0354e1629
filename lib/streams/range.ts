/**
 * Evaluates the `Range` header for a file of known size. The counterpart of
 * `crates/http/src/range.rs`; a test compares the two.
 *
 * The cost is linear in the length of the header, plus one sort of at most `maxRanges` entries; numbers saturate.
 */
import type { Conformance } from './conformance.js';
import { sameWord, splitOnce, trim, trimOf, trimStartOf } from './text.js';

/** The bytes from `start` up to, not including, `end` of a file; never empty. */
export interface ByteRange {
  start: number;
  end: number;
}

/** The whole file (200), ranges that neither overlap nor touch (206), or 416. */
export type RangeDecision = 'whole' | 'unsatisfiable' | ByteRange[];

/** Limits and rules. */
export interface RangePolicy {
  /** Maximum number of satisfiable ranges; for more the whole file is sent, RFC 9110 section 14.2. */
  maxRanges: number;
  /** Answer several ranges with `multipart/byteranges`; otherwise with the whole file, as in `@fastify/static`. */
  multipart: boolean;
  conformance: Conformance;
}

/**
 * Evaluates a `Range` header for a file of `size` bytes. An empty file is sent as a whole: a proxy that requests every file in ranges
 * (`slice` of nginx) would turn the 416 into an error for a plain GET.
 */
export function decide(header: string, size: number, policy: RangePolicy): RangeDecision {
  if (size === 0) return 'whole';
  const parse = policy.conformance === 'rfc9110' ? parseRfc : parseFastify;
  const parsed = parse(header, size, policy.maxRanges);
  if (parsed === undefined) return 'whole';
  const ranges = merge(parsed);
  if (ranges.length === 0) return 'unsatisfiable';
  return ranges.length === 1 || policy.multipart ? ranges : 'whole';
}

/** Merges ranges that overlap or touch, RFC 9110 section 15.3.7.2. The order is that of the first members. */
function merge(ranges: ByteRange[]): ByteRange[] {
  if (ranges.length < 2) return ranges;
  const merged: { index: number; range: ByteRange }[] = [];
  for (const { index, range } of ranges
    .map((range, index) => ({ index, range: { ...range } }))
    .sort((a, b) => a.range.start - b.range.start)) {
    const last = merged.at(-1);
    if (last !== undefined && range.start <= last.range.end) {
      last.range.end = Math.max(last.range.end, range.end);
      last.index = Math.min(last.index, index);
    } else {
      merged.push({ index, range });
    }
  }
  return merged.sort((a, b) => a.index - b.index).map(({ range }) => range);
}

/**
 * Parses a header by RFC 9110 sections 14.1.2 and 14.2. `undefined` for an unknown unit or a syntax error: the header is ignored.
 */
function parseRfc(header: string, size: number, maxRanges: number): ByteRange[] | undefined {
  const [unit, set] = splitOnce(trim(header), '=') ?? [];
  if (unit === undefined || set === undefined || !sameWord(unit, 'bytes')) return undefined;
  const ranges: ByteRange[] = [];
  let anySpec = false;
  let emptyButSatisfiable = false;
  for (const spec of set.split(',').map((item) => trimOf(item, ' \t'))) {
    if (spec === '') continue;
    anySpec = true;
    const [first, last] = splitOnce(spec, '-') ?? [];
    if (first === undefined || last === undefined) return undefined;
    const from = digits(first);
    const to = digits(last);
    let range: ByteRange;
    if (from !== undefined && to !== undefined) {
      if (from > to) return undefined;
      range = { start: Number(from), end: Math.min(Number(to) + 1, size) };
    } else if (from !== undefined && last === '') {
      range = { start: Number(from), end: size };
    } else if (to !== undefined && first === '') {
      // A suffix of an empty file is satisfiable, but `Content-Range` cannot express it.
      emptyButSatisfiable ||= to > 0n && size === 0;
      range = { start: Math.max(0, size - Number(to)), end: size };
    } else {
      return undefined;
    }
    if (range.start < range.end) {
      if (ranges.length === maxRanges) return undefined;
      ranges.push(range);
    }
  }
  return anySpec && !emptyButSatisfiable ? ranges : undefined;
}

const LARGEST = 2n ** 64n - 1n;

/** Parses `1*DIGIT`, saturating. Numbers beyond the precision of a double compare correctly. */
function digits(text: string): bigint | undefined {
  if (text === '' || /[^0-9]/.test(text)) return undefined;
  const significant = trimStartOf(text, '0');
  if (significant.length > 20) return LARGEST;
  const value = BigInt(significant);
  return value > LARGEST ? LARGEST : value;
}

/**
 * The behavior of `@fastify/send` 4.2.1, which uses `parseInt`: between two commas, the text before the next dash is the start and the
 * text after it the end; the dash is optional. A missing number means "from the end" or "to the end"; invalid ranges are left out.
 */
function parseFastify(header: string, size: number, maxRanges: number): ByteRange[] | undefined {
  const given = trimStartOf(header, ' ');
  if (!given.startsWith('bytes=')) return undefined;
  const set = given.slice('bytes='.length);
  // Without a dash the end is parsed from the start of the set, as in `slice(-1 + 1, comma)`. parseInt stops at the first comma, so
  // this is the same number for every member.
  const head = parseInteger(set, 0, set.length);

  const ranges: ByteRange[] = [];
  let piece = 0;
  let dash = set.indexOf('-');
  for (;;) {
    const comma = set.indexOf(',', piece);
    const pieceEnd = comma < 0 ? set.length : comma;
    // Without a dash, as `slice(start, -1)`: up to the last but one character of the header.
    const first = parseInteger(set, piece, dash < 0 ? set.length - 1 : dash);
    const last = dash < 0 ? head : parseInteger(set, dash + 1, pieceEnd);
    const start = first ?? (last === undefined ? undefined : size - last);
    const end = first === undefined || last === undefined ? size - 1 : Math.min(last, size - 1);
    if (start !== undefined && start >= 0 && start <= end) {
      if (ranges.length === maxRanges) return undefined;
      ranges.push({ start, end: end + 1 });
    }
    if (comma < 0) return ranges;
    piece = comma + 1;
    if (dash >= 0 && dash < piece) dash = set.indexOf('-', piece);
  }
}

/** As `parseInt(text.slice(from, to), 10)`: ASCII spaces, a sign, digits, then anything. `undefined` for NaN. */
function parseInteger(text: string, from: number, to: number): number | undefined {
  let at = from;
  while (at < to && ' \t\n\f\r'.includes(text[at] as string)) at += 1;
  const negative = text[at] === '-';
  if (at < to && (negative || text[at] === '+')) at += 1;
  let value: number | undefined;
  for (; at < to; at += 1) {
    const digit = text.charCodeAt(at) - 0x30;
    if (!(digit >= 0 && digit <= 9)) break;
    value = Math.min((value ?? 0) * 10 + digit, Number.MAX_SAFE_INTEGER);
  }
  return value !== undefined && negative ? -value : value;
}
