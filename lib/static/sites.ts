/** The sites of a registration: its own, and those for responses with another root or other options. */
import { parse, resolve, sep } from 'node:path';

import { cacheOption } from '../cache/cache-option.js';
import { FileCache } from '../cache/file-cache.js';
import { type FastifyStaticOptions, type ReplyOptions, rootPath } from './options.js';
import { type Overrides, overridesOf } from './overrides.js';
import { Site } from './site.js';
import { DEFAULT_CACHE, type SiteOptions } from './site-options.js';

/** Maximum number of sites with other roots or options that a registration keeps open. */
const MAX_SITES = 64;

/** The options of a response that require another site. All others are parameters of the request, or cannot be changed. */
const SITE_OPTIONS = [
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
  /** The site of the registration; `undefined` without a root. */
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
    // Opened also without a root, so that invalid options throw when the plugin is registered.
    const site = new Site(roots ?? ['/'], options, Boolean(options.list));
    if (roots === undefined) site.close();
    else this.own = site;
  }

  /** The site for a response; `undefined` without a root. Throws for invalid options. */
  for(root: ReplyOptions['root'], options: ReplyOptions | undefined): Site | undefined {
    if (!root && options === undefined) return this.own;
    const roots = root ? (Array.isArray(root) ? root : [root]).map((one) => resolve(rootPath(one))) : this.#roots;
    return roots === undefined ? undefined : this.#with(roots, options);
  }

  /** The overrides for a response with these options. Throws for invalid options. */
  overrides(options: ReplyOptions | undefined): Overrides | undefined {
    return options === undefined ? undefined : overridesOf(options, this.#options);
  }

  /** The site for an absolute path of the file system, and the path relative to the root of that site. */
  unrooted(file: string, options: ReplyOptions | undefined): { site: Site; pathname: string } {
    // On Windows, each drive has a root.
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
    // As with Object.assign, an option that is undefined means the default, not the option of the registration.
    for (const name of SITE_OPTIONS) if (options !== undefined && name in options) own[name] = options[name] ?? null;
    const isRegistered = this.own !== undefined && roots === this.#roots && Object.keys(own).length === 0;
    if (isRegistered) return this.own as Site;
    const key = JSON.stringify([roots, own]);
    const existing = this.#others.get(key);
    if (existing !== undefined) {
      // The least recently used site is closed first.
      this.#others.delete(key);
      this.#others.set(key, existing);
      return existing;
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
