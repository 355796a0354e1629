/**
 * The `Range` header for a file of known size: all of it, some ranges, or none. The counterpart of
 * `crates/http/src/range.rs`; the comparison test holds the two together.
 *
 * Work is linear in the header (plus one sort of at most `maxRanges` entries) and every number saturates, so a hostile
 * header costs no more than its length.
 */
import type { Conformance } from './conformance.js';
import { sameWord, splitOnce, trim, trimOf, trimStartOf } from './text.js';

/** Bytes `start` up to and without `end` of a file; never empty. */
export interface ByteRange {
  start: number;
  end: number;
}

/** The whole file (200), some ranges (206; of several none overlaps or touches another), or 416. */
export type RangeDecision = 'whole' | 'unsatisfiable' | ByteRange[];

/** How far to go along with a client. */
export interface RangePolicy {
  /** A header with more satisfiable ranges than this gets the whole file, RFC 9110 section 14.2. */
  maxRanges: number;
  /** Answer several ranges with `multipart/byteranges`; otherwise with the whole file, as `@fastify/static` does. */
  multipart: boolean;
  conformance: Conformance;
}

/**
 * Decides on a `Range` header for a file of `size` bytes. An empty file is answered whole: no range of it can be satisfied, and a
 * proxy that asks for every file in ranges (nginx's `slice`) would turn a 416 into an error for a plain GET.
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

/** Joins ranges that overlap or touch (RFC 9110 section 15.3.7.2). Each result stands where its earliest member stood. */
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
 * RFC 9110 section 14.1.2 and 14.2: an unknown unit or a header that breaks the grammar is ignored as a whole, which
 * `undefined` stands for.
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
      // A suffix of an empty file is satisfiable, but no 206 can say so.
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

/** `1*DIGIT`, saturating. Exact beyond what a double holds, for two such numbers are compared with each other. */
function digits(text: string): bigint | undefined {
  if (text === '' || /[^0-9]/.test(text)) return undefined;
  const significant = trimStartOf(text, '0');
  if (significant.length > 20) return LARGEST;
  const value = BigInt(significant);
  return value > LARGEST ? LARGEST : value;
}

/**
 * The observable rules of `@fastify/send` 4.2.1, which takes whatever `parseInt` takes: between two commas, what stands
 * before the next dash is the start and what stands after it the end, and a dash may be missing. A missing number means
 * "from the end" or "to the end", what makes no range is left out.
 */
function parseFastify(header: string, size: number, maxRanges: number): ByteRange[] | undefined {
  const given = trimStartOf(header, ' ');
  if (!given.startsWith('bytes=')) return undefined;
  const set = given.slice('bytes='.length);
  // Without a dash the end is parsed from the very beginning of the set, as `slice(-1 + 1, comma)` does. parseInt stops
  // at the first comma at the latest, so this is the same number for every piece.
  const head = parseInteger(set, 0, set.length);

  const ranges: ByteRange[] = [];
  let piece = 0;
  let dash = set.indexOf('-');
  for (;;) {
    const comma = set.indexOf(',', piece);
    const pieceEnd = comma < 0 ? set.length : comma;
    // Without a dash, `slice(piece, -1)`: to the end of the header less one character.
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

/** ECMAScript `parseInt(text.slice(from, to), 10)`: blanks of ASCII, a sign, digits, then anything. `undefined` is NaN. */
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
