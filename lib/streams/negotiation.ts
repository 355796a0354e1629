/**
 * Which content coding a client takes, RFC 9110 section 12.5.3, and `Vary`. The counterpart of
 * `crates/http/src/negotiation.rs`; the comparison test holds the two together.
 */
import type { Conformance } from './conformance.js';
import { lowerCase, sameWord, splitOnce, trim, trimOf } from './text.js';

/** A content coding that a file may be stored in beside the plain one. */
export type Encoding = 'zstd' | 'br' | 'gzip' | 'deflate';

/** What is appended to the plain file's name. */
export const SUFFIXES: Record<Encoding, string> = { zstd: '.zst', br: '.br', gzip: '.gz', deflate: '.deflate' };

/** Every coding of `supported` (in the server's order) for an `Accept-Encoding` header, best first. */
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

/** What to set `Vary` to so that it names `accept-encoding`; `null` when it already does. */
export function mergeVary(existing: string | undefined | null): string | null {
  if (existing === undefined || existing === null) return 'accept-encoding';
  const tokens = existing.split(',').map(trim);
  return tokens.some((token) => token === '*' || sameWord(token, 'accept-encoding'))
    ? null
    : `${existing}, accept-encoding`;
}

/** Highest weight wins, the server's order breaks ties, a coding below `identity` loses to it. */
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
 * The weight among a member's parameters, as thousandths since it has three decimals, RFC 9110 section 12.4.2; `undefined`
 * when one breaks the grammar.
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
 * The observable rules of `@fastify/static` with `@fastify/accept-negotiator`: every `*` reads as `gzip`, `identity` is not a
 * candidate, a weight is whatever digits follow the semicolon, and blanks end nothing.
 */
function negotiateFastify(header: string, supported: readonly Encoding[]): Encoding | undefined {
  const choice = new Choice(supported);
  let state: 'begin' | 'token' | 'weight' = 'begin';
  let token = '';
  let weight = new Weight();
  let afterBlank = false;
  // Byte by byte: a character of two bytes is two that are no blank and no digit.
  const bytes = Buffer.from(header).toString('latin1');
  for (const character of lowerCase(bytes).replaceAll('*', 'gzip')) {
    const blankBefore = afterBlank;
    afterBlank = character === ' ' || character === '\t';
    if (afterBlank) continue;
    if (character === ';' && state === 'token') {
      state = 'weight';
      weight = new Weight();
    } else if (character === ';' || (character === ',' && state === 'begin')) {
      // Nothing that it could separate.
    } else if (character === ',') {
      choice.offer(token, state === 'token' ? 1 : weight.value);
      state = 'begin';
      token = '';
    } else if (state === 'weight' && (character === 'q' || character === '=')) {
      // Of `q=0.5` only the number counts.
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
  /** The server's first choice at full weight ends the search: a later `q=2` is not seen. */
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
