/**
 * `Cache-Control` by the name of a file: rules for patterns, and names that carry a hash of their content. The counterpart
 * of `crates/http/src/caching.rs`; the comparison test holds the two together.
 */
import type { SiteSettings } from '#native';
import { Glob } from './glob.js';
import { afterLast } from './text.js';

/** For a name that changes with its content: a year, and no question asked, RFC 8246. */
const HASHED = 'public, max-age=31536000, immutable';

/** What `Cache-Control` says of each file of a site. */
export class CachePolicy {
  /** The first that matches decides; without a value there is no header. */
  readonly #rules: { pattern: Glob; value: string | undefined }[];
  readonly #hashed: boolean;
  /** Seconds, for all others; `undefined`: no header. */
  readonly #maxAge: number | undefined;
  readonly #immutable: boolean;

  /** @param wrong makes the error for a pattern that is none. */
  constructor(
    settings: Pick<SiteSettings, 'cacheRules' | 'immutableHashed' | 'immutable' | 'maxAge'>,
    wrong: (pattern: string) => Error,
  ) {
    const { maxAge, immutable } = settings;
    this.#rules = settings.cacheRules.map(({ pattern, value }) => {
      const glob = Glob.read(pattern);
      if (glob === undefined) throw wrong(pattern);
      return { pattern: glob, value };
    });
    this.#hashed = settings.immutableHashed;
    this.#maxAge = maxAge;
    this.#immutable = immutable;
  }

  /** The value for the file at `path` (relative, without the suffix of a coding). `maxAge`: in place of the site's. */
  value(path: string, maxAge: number | undefined): string | undefined {
    const rule = this.#rules.find(({ pattern }) => pattern.matches(path));
    if (rule !== undefined) return rule.value;
    if (this.#hashed && hasContentHash(path)) return HASHED;
    if (this.#maxAge === undefined) return undefined;
    return `public, max-age=${maxAge ?? this.#maxAge}${this.#immutable ? ', immutable' : ''}`;
  }
}

/**
 * True for a file name with a content hash before its extension, as bundlers make them: `index-BH3kT9aZ.js`,
 * `main.8f3a0c1d.css`. Better to miss a hash than to see one in a word or a date, since the answer is kept for a year.
 */
export function hasContentHash(path: string): boolean {
  const name = afterLast(path, '/');
  // The first piece is the name itself, the last one its extension: a name without either has no hash.
  const pieces = name.split(/[.-]/).slice(1);
  const last = pieces.pop();
  return last !== undefined && name.endsWith(`.${last}`) && pieces.some(isHash);
}

/**
 * At least eight letters and digits that are hexadecimal and have both kinds, or that have capitals, small letters and
 * digits; or exactly eight with capitals and small letters in an order no words have (`BHkTLaZq`).
 */
function isHash(piece: string): boolean {
  if (!/^[A-Za-z0-9_]{8,}$/.test(piece)) return false;
  const lower = /[a-z]/.test(piece);
  if (/[0-9]/.test(piece)) return lower && (/[A-Z]/.test(piece) || /^[0-9a-f]+$/.test(piece));
  // `MyWidget` and `README` are words: a capital after a capital and, elsewhere, after a small letter are none.
  const pairs = (pair: RegExp) => piece.match(pair)?.length ?? 0;
  return piece.length === 8 && pairs(/[a-z](?=[A-Z])/g) >= 2 && pairs(/[A-Z](?=[A-Z])/g) >= 1;
}
