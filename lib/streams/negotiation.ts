/**
 * Negotiation of content codings, RFC 9110 section 12.5.3, and `Vary`. The counterpart of
 * `crates/http/src/negotiation.rs`; a test compares the two.
 */
import type { Conformance } from './conformance.js';
import { lowerCase, sameWord, splitOnce, trim, trimOf } from './text.js';

/** The content coding of a precompressed file. */
export type Encoding = 'zstd' | 'br' | 'gzip' | 'deflate';

/** The suffix of the precompressed file. */
export const SUFFIXES: Record<Encoding, string> = { zstd: '.zst', br: '.br', gzip: '.gz', deflate: '.deflate' };

/** The codings among `supported` (in the server's order) that an `Accept-Encoding` header accepts, best first. */
export function* preferences(
  header: string,
  supported: readonly Encoding[],
  conformance: Conformance,
): Generator<Encoding> {
  const negotiate = conformance === 'rfc9110' ? negotiateRfc : negotiateFastify;
  for (let left = supported; left.length > 0; ) {
    const choice = negotiate(header, left);
    if (choice === undefined) return;
    yield choice;
    left = left.filter((encoding) => encoding !== choice);
  }
}

/** The value of `Vary` with `accept-encoding` added; `null` if it is included already. */
export function mergeVary(existing: string | undefined | null): string | null {
  if (existing === undefined || existing === null) return 'accept-encoding';
  const tokens = existing.split(',').map(trim);
  return tokens.some((token) => token === '*' || sameWord(token, 'accept-encoding'))
    ? null
    : `${existing}, accept-encoding`;
}

/** Sorted by weight, then by the server's order; codings with a lower weight than `identity` are left out. */
function negotiateRfc(header: string, supported: readonly Encoding[]): Encoding | undefined {
  const weights = new Map<string, number>();
  for (const member of header.split(',')) {
    const [name = '', ...parameters] = member.split(';').map((part) => trimOf(part, ' \t'));
    const weight = weightOf(parameters);
    // RFC 9110 section 8.4.1.3: `x-gzip` is `gzip`.
    if (weight !== undefined) weights.set(sameWord(name, 'x-gzip') ? 'gzip' : lowerCase(name), weight);
  }
  let best: Encoding | undefined;
  let most = 0;
  for (const encoding of supported) {
    const weight = weights.get(encoding) ?? weights.get('*') ?? 0;
    if (weight > most) {
      best = encoding;
      most = weight;
    }
  }
  return (weights.get('identity') ?? 0) > most ? undefined : best;
}

/**
 * The weight in the parameters of a member, in thousandths (RFC 9110 section 12.4.2: three decimals); `undefined` for a syntax
 * error.
 */
function weightOf(parameters: string[]): number | undefined {
  let weight = 1000;
  for (const parameter of parameters) {
    if (!/^q=/i.test(parameter)) continue;
    const [whole, decimals] = splitOnce(parameter.slice(2), '.') ?? [parameter.slice(2), ''];
    if (!/^\d{0,3}$/.test(decimals) || (whole !== '0' && whole !== '1')) return undefined;
    weight = Number(whole) * 1000 + Number(decimals.padEnd(3, '0'));
    if (weight > 1000) return undefined;
  }
  return weight;
}

/**
 * The behavior of `@fastify/static` with `@fastify/accept-negotiator`: `*` means `gzip`, `identity` is not a candidate, the weight is
 * formed by the digits after the semicolon, and spaces do not separate members.
 */
function negotiateFastify(header: string, supported: readonly Encoding[]): Encoding | undefined {
  const choice = new Choice(supported);
  let state: 'begin' | 'token' | 'weight' = 'begin';
  let token = '';
  let weight = new Weight();
  let afterBlank = false;
  // Processed as bytes: a non-ASCII character is neither a space nor a digit.
  const bytes = Buffer.from(header).toString('latin1');
  for (const character of lowerCase(bytes).replaceAll('*', 'gzip')) {
    const blankBefore = afterBlank;
    afterBlank = character === ' ' || character === '\t';
    if (afterBlank) continue;
    if (character === ';' && state === 'token') {
      state = 'weight';
      weight = new Weight();
    } else if (character === ';' || (character === ',' && state === 'begin')) {
      // An empty member.
    } else if (character === ',') {
      choice.offer(token, state === 'token' ? 1 : weight.value);
      state = 'begin';
      token = '';
    } else if (state === 'weight' && (character === 'q' || character === '=')) {
      // `q=` is ignored.
    } else if (state === 'weight' && /[\d.]/.test(character)) {
      weight.push(character);
    } else if (state === 'weight') {
      choice.offer(token, weight.value);
      state = 'begin';
      token = character;
    } else {
      token = state === 'token' && blankBefore ? character : token + character;
      state = 'token';
    }
    if (choice.done) return choice.best;
  }
  if (state !== 'begin') choice.offer(token, state === 'token' ? 1 : weight.value);
  return choice.best;
}

/** `parseFloat` of digits and dots, exact for 18 digits, so that `0.9` equals `0.90`. */
class Weight {
  #digits = '';
  #decimals = 0;
  #dots = 0;

  push(character: string): void {
    if (character === '.') {
      this.#dots += 1;
    } else if (this.#dots < 2 && this.#digits.length < 18) {
      this.#digits += character;
      this.#decimals += this.#dots;
    }
  }

  get value(): number {
    return Number(this.#digits) / Number(`1e${this.#decimals}`);
  }
}

class Choice {
  best: Encoding | undefined;
  /** The search ends at the server's preferred coding with full weight: a later `q=2` has no effect. */
  done = false;
  readonly #supported: readonly Encoding[];
  #weight = 0;
  #rank = 0;

  constructor(supported: readonly Encoding[]) {
    this.#supported = supported;
  }

  offer(name: string, weight: number): void {
    const rank = this.#supported.indexOf(name as Encoding);
    if (rank < 0) return;
    const better = weight > this.#weight || (this.best !== undefined && weight === this.#weight && rank < this.#rank);
    if (better) {
      this.best = this.#supported[rank];
      this.#weight = weight;
      this.#rank = rank;
    }
    this.done = better && rank === 0 && weight === 1;
  }
}
