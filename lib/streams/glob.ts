/**
 * Glob patterns for paths below a root: `*`, `?`, `**` and `{a,b}`; everything else is literal. The counterpart of
 * `crates/http/src/glob.rs`; a test compares the two.
 *
 * Not implemented with `RegExp`: the cost of matching is at most the product of the two lengths.
 */
import { afterLast, splitOnce } from './text.js';

/** Maximum number of patterns that braces expand to. */
const MOST = 256;

/** A parsed pattern. */
export class Glob {
  /** One pattern for each combination of the braces. */
  readonly #alternatives: string[][];
  readonly #byName: boolean;

  private constructor(alternatives: string[][], byName: boolean) {
    this.#alternatives = alternatives;
    this.#byName = byName;
  }

  /**
   * Parses a pattern. `undefined` for an empty pattern, unbalanced or nested braces, and braces that expand to more than 256
   * patterns.
   */
  static read(given: string): Glob | undefined {
    const pattern = given.startsWith('/') ? given.slice(1) : given;
    const alternatives = pattern === '' ? undefined : expand(pattern);
    return (
      alternatives &&
      new Glob(
        alternatives.map((alternative) => alternative.split('/')),
        !pattern.includes('/'),
      )
    );
  }

  /** Whether the pattern matches `path` (relative, without leading and trailing slash). */
  matches(path: string): boolean {
    const names = (this.#byName ? afterLast(path, '/') : path).split('/');
    return this.#alternatives.some((pattern) =>
      wild(
        pattern,
        names,
        (segment) => segment === '**',
        (segment, name) =>
          wild(
            [...segment],
            [...name],
            (character) => character === '*',
            (one, other) => one === '?' || one === other,
          ),
      ),
    );
  }
}

/** Expands the braces. */
function expand(pattern: string): string[] | undefined {
  let results = [''];
  let rest = pattern;
  for (let opened = splitOnce(rest, '{'); opened !== undefined; opened = splitOnce(rest, '{')) {
    const [before, tail] = opened;
    const [inside, after] = splitOnce(tail, '}') ?? [];
    if (inside === undefined || after === undefined || before.includes('}') || inside.includes('{')) return undefined;
    const choices = inside.split(',');
    if (results.length * choices.length > MOST) return undefined;
    results = results.flatMap((start) => choices.map((choice) => start + before + choice));
    rest = after;
  }
  return rest.includes('}') ? undefined : results.map((start) => start + rest);
}

/**
 * Matches items against a pattern with wildcards for any number of items. Backtracking to the last wildcard is sufficient: it
 * can match whatever an earlier one could.
 */
function wild(
  pattern: string[],
  items: string[],
  isWild: (member: string) => boolean,
  equal: (member: string, item: string) => boolean,
): boolean {
  let at = 0;
  let item = 0;
  let retry: { at: number; taken: number } | undefined;
  while (item < items.length) {
    const member = pattern[at];
    if (member !== undefined && isWild(member)) {
      retry = { at, taken: item };
      at += 1;
    } else if (member !== undefined && equal(member, items[item] as string)) {
      at += 1;
      item += 1;
    } else if (retry !== undefined) {
      retry.taken += 1;
      at = retry.at + 1;
      item = retry.taken;
    } else {
      return false;
    }
  }
  return pattern.slice(at).every(isWild);
}
