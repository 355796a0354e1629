/** The sites of a registration: its own, and those that a response asks for with another root or options. */
import { parse, resolve, sep } from 'node:path';

import { cacheOption } from '../cache/cache-option.js';
import { FileCache } from '../cache/file-cache.js';
import { type FastifyStaticOptions, type ReplyOptions, rootPath } from './options.js';
import { type Overrides, overridesOf } from './overrides.js';
import { Site } from './site.js';
import { DEFAULT_CACHE, type SiteOptions } from './site-options.js';

/** Sites of other roots and options that a registration keeps open. */
const MAX_SITES = 64;

/**
 * The options that a single response can change and that a site is made with; the others are the registration's alone, or
 * parameters of the request.
 */
const OWN = [
  'acceptRanges',
  'cacheControl',
  'conformance',
  'contentType',
  'dotfiles',
  'etag',
  'extensions',
  'immutable',
  'index',
  'lastModified',
  'method',
  'multipart',
  'symlinks',
] as const satisfies readonly (keyof ReplyOptions)[];

export class Sites {
  /** The registration's own; `undefined` without a root. */
  readonly own: Site | undefined;
  readonly cache: FileCache | undefined;
  readonly #ownsCache: boolean;
  readonly #options: FastifyStaticOptions;
  readonly #roots: readonly string[] | undefined;
  readonly #others = new Map<string, Site>();

  constructor(roots: string[] | undefined, given: FastifyStaticOptions) {
    this.cache = cacheOption(given.cache, DEFAULT_CACHE);
    this.#ownsCache = !(given.cache instanceof FileCache);
    const options = { ...given, cache: this.cache };
    this.#options = options;
    this.#roots = roots;
    // Made without a root too, so that wrong options fail here and not in the middle of a response.
    const site = new Site(roots ?? ['/'], options, Boolean(options.list));
    if (roots === undefined) site.close();
    else this.own = site;
  }

  /** The site for a response; `undefined` when no root is known. Throws for options that are wrong. */
  for(root: ReplyOptions['root'], options: ReplyOptions | undefined): Site | undefined {
    if (!root && options === undefined) return this.own;
    const roots = root ? (Array.isArray(root) ? root : [root]).map((one) => resolve(rootPath(one))) : this.#roots;
    return roots === undefined ? undefined : this.#with(roots, options);
  }

  /** What a response with these options asks its site for. Throws for options that are wrong. */
  overrides(options: ReplyOptions | undefined): Overrides | undefined {
    return options === undefined ? undefined : overridesOf(options, this.#options);
  }

  /** The site for an absolute path of the file system itself, and the path below that site's root. */
  unrooted(file: string, options: ReplyOptions | undefined): { site: Site; pathname: string } {
    // On Windows each drive is one.
    const { root } = parse(file);
    return { site: this.#with([root], options), pathname: `/${file.slice(root.length).split(sep).join('/')}` };
  }

  close(): void {
    this.own?.close();
    for (const site of this.#others.values()) site.close();
    this.#others.clear();
    if (this.#ownsCache) this.cache?.close();
  }

  #with(roots: readonly string[], options: ReplyOptions | undefined): Site {
    const own: Record<string, unknown> = {};
    // Own but undefined is the default, not the registration's, as with Object.assign.
    for (const name of OWN) if (options !== undefined && name in options) own[name] = options[name] ?? null;
    const isRegistered = this.own !== undefined && roots === this.#roots && Object.keys(own).length === 0;
    if (isRegistered) return this.own as Site;
    const key = JSON.stringify([roots, own]);
    const known = this.#others.get(key);
    if (known !== undefined) {
      // To the end of the order in which they are closed.
      this.#others.delete(key);
      this.#others.set(key, known);
      return known;
    }
    for (const name of Object.keys(own)) own[name] ??= undefined;
    const site = new Site([...roots], { ...this.#options, ...own } as SiteOptions, Boolean(this.#options.list));
    const [oldest] = this.#others;
    if (oldest !== undefined && this.#others.size >= MAX_SITES) {
      this.#others.delete(oldest[0]);
      oldest[1].close();
    }
    this.#others.set(key, site);
    return site;
  }
}
