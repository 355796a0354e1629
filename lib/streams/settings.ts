/**
 * Checks the settings of a site. The counterpart of `crates/node/src/site/mod.rs` and `crates/http/src/site/options.rs`, with the
 * same error messages; a test compares the two.
 */
import type { SiteSettings } from '#native';
import { METHODS } from '../types/method.js';
import { failure } from '../util/errors.js';
import { CachePolicy } from './caching.js';
import type { Conformance } from './conformance.js';
import type { Encoding } from './negotiation.js';
import { type PathRules, RequestPath } from './path.js';
import { Root, type Symlinks } from './root.js';

export type { Encoding };

/** The options of a site. `method` and `cache` are checked and not used. */
export interface SiteOptions extends Omit<SiteSettings, 'roots'> {
  symlinks: Symlinks;
  preCompressed: Encoding[];
  conformance: Conformance;
  pathRules: PathRules;
  caching: CachePolicy;
}

/** The enums that are checked first; the order decides which error is thrown. */
const ENUMS = {
  method: METHODS,
  dotfiles: ['allow', 'deny', 'ignore'],
  symlinks: ['follow', 'beneath', 'deny'],
  preCompressed: ['zstd', 'br', 'gzip', 'deflate'],
} as const;
/** The enums that are checked after the cache rules. */
const LATER_ENUMS = {
  conformance: ['fastify-static', 'rfc9110'],
  pathRules: ['decode-uri', 'full'],
} as const;

/** Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. */
export function readSettings(settings: SiteSettings): { roots: Root[]; options: SiteOptions } {
  checkEnums(settings, ENUMS);
  const caching = new CachePolicy(settings, (pattern) =>
    wrong(`invalid cacheControl pattern '${pattern}': use names, *, ?, ** and {a,b}`),
  );
  checkEnums(settings, LATER_ENUMS);
  const { roots, index, fallback, extensions, preCompressed, symlinks } = settings;
  const opened = roots.map((path) => new Root(path, symlinks as Symlinks));
  if (roots.length === 0) throw wrong('roots is empty: give one directory or more');
  for (const name of index) {
    if (!isFileName(name)) throw refuse('index', name, 'a file name below its directory, such as index.html');
  }
  if (fallback !== undefined && !isFileName(fallback)) {
    throw refuse('fallback', fallback, 'a file below the root, such as index.html');
  }
  for (const name of extensions) {
    const path = RequestPath.from(name);
    if (name.includes('/') || typeof path === 'string' || path.relative === '') {
      throw refuse('extensions', name, 'extensions without the dot, such as html');
    }
  }
  const twice = preCompressed.find((coding, at) => preCompressed.includes(coding, at + 1));
  if (twice !== undefined) throw wrong(`duplicate preCompressed '${twice}': list each coding once`);
  return {
    roots: opened,
    options: { ...settings, caching } as SiteOptions,
  };
}

function checkEnums(settings: SiteSettings, allowed: Partial<Record<keyof SiteSettings, readonly string[]>>): void {
  for (const [name, words] of Object.entries(allowed)) {
    for (const value of [settings[name as keyof SiteSettings]].flat()) {
      if (!words.includes(value as string)) {
        throw wrong(`invalid ${name} '${String(value)}': use one of ${words.join(', ')}`);
      }
    }
  }
}

function isFileName(name: string): boolean {
  const path = RequestPath.from(name);
  return typeof path !== 'string' && path.relative === name && name !== '';
}

function refuse(option: string, value: string, remedy: string): Error {
  return wrong(`invalid ${option} '${value}': use ${remedy}`);
}

function wrong(message: string): Error {
  return failure('ERR_ZEROSEND_INVALID_ARGUMENT', message);
}
