/**
 * `Cache-Control` by file name: rules for glob patterns, and names that contain a content hash. The counterpart
 * of `crates/http/src/caching.rs`; a test compares the two.
 */
import type { SiteSettings } from '#native';
import { Glob } from './glob.js';
import { afterLast } from './text.js';

/** For names that contain a content hash: one year, without revalidation, RFC 8246. */
const HASHED = 'public, max-age=31536000, immutable';

/** The `Cache-Control` policy of a site. */
export class CachePolicy {
  /** The first matching rule applies; a rule without a value means no header. */
  readonly #rules: { pattern: Glob; value: string | undefined }[];
  readonly #hashed: boolean;
  /** `max-age` in seconds for files without a rule; `undefined` for no header. */
  readonly #maxAge: number | undefined;
  readonly #immutable: boolean;

  /** @param wrong Makes the error for an invalid pattern. */
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

  /** The header for the file at `path` (relative, without coding suffix). `maxAge` replaces that of the site. */
  value(path: string, maxAge: number | undefined): string | undefined {
    const rule = this.#rules.find(({ pattern }) => pattern.matches(path));
    if (rule !== undefined) return rule.value;
    if (this.#hashed && hasContentHash(path)) return HASHED;
    if (this.#maxAge === undefined) return undefined;
    return `public, max-age=${maxAge ?? this.#maxAge}${this.#immutable ? ', immutable' : ''}`;
  }
}

/**
 * Whether a file name contains a content hash before its extension, as bundlers add it: `index-BH3kT9aZ.js`,
 * `main.8f3a0c1d.css`. Prefers false negatives: words and dates must not be taken for a hash, because clients cache the file for
 * a year.
 */
export function hasContentHash(path: string): boolean {
  const name = afterLast(path, '/');
  // The first part is the name, the last part the extension.
  const pieces = name.split(/[.-]/).slice(1);
  const last = pieces.pop();
  return last !== undefined && name.endsWith(`.${last}`) && pieces.some(isHash);
}

/**
 * Eight or more letters and digits that are hexadecimal with letters and digits, or contain upper case, lower case and digits; or
 * exactly eight letters with upper and lower case in an order that is not that of words (`BHkTLaZq`).
 */
function isHash(piece: string): boolean {
  if (!/^[A-Za-z0-9_]{8,}$/.test(piece)) return false;
  const lower = /[a-z]/.test(piece);
  if (/[0-9]/.test(piece)) return lower && (/[A-Z]/.test(piece) || /^[0-9a-f]+$/.test(piece));
  // Words (`MyWidget`, `README`) do not have both a capital after a capital and a capital after a small letter.
  const pairs = (pair: RegExp) => piece.match(pair)?.length ?? 0;
  return piece.length === 8 && pairs(/[a-z](?=[A-Z])/g) >= 2 && pairs(/[A-Z](?=[A-Z])/g) >= 1;
}
