/** Sites: the options of static serving in the engine's words, and requests to the engine. */
import type { IncomingHttpHeaders } from 'node:http';
import { join } from 'node:path';

import { parse as parseDuration } from '@lukeed/ms';
import type { RequestConditions, SiteAnswer, SiteSettings } from '#native';
import { FileCache, type FileCacheOptions, tokenOf } from '../cache/file-cache.js';
import { ask, staticEngine } from '../runtime/engine.js';
import type { Method } from '../types/method.js';
import { invalid } from '../util/errors.js';

/** A coding that a file may be stored in beside the plain one, with the suffix `.zst`, `.br`, `.gz`, `.deflate`. */
export type Coding = 'zstd' | 'br' | 'gzip' | 'deflate';

/** What every way of static serving takes. */
export interface SiteOptions {
  /** Send `Accept-Ranges` and answer `Range`. Default true. */
  acceptRanges?: boolean | undefined;
  /**
   * Send `Cache-Control`. Default true; false ignores `maxAge` and `immutable`. An object has globs for names (`*`, `**`,
   * `?`, `{a,b}`; without a slash they mean the last segment) and values, of which the first that matches decides
   * (false: no header): `{ '*.html': 'no-cache', 'assets/**': 'public, max-age=31536000, immutable' }`. For files that none
   * matches it is as true.
   */
  cacheControl?: boolean | Record<string, string | false> | undefined;
  /**
   * Where RFC 9110 and `@fastify/static` part (suffix ranges longer than the file, `If-Range` with a weak tag, `Range` on
   * HEAD, ...), whom to follow. Default `'fastify-static'`.
   */
  conformance?: 'fastify-static' | 'rfc9110' | undefined;
  /**
   * Keep files that are asked for again and again ready to be sent: a cache of its own with these options (`true`: those of
   * {@link FileCache}), or one that others use too. Default `{ maxFileSize: 65536 }`: small files only, in memory and compared
   * with the disk at every request, so that nothing but speed differs and no file is held open. Used with the methods `'auto'`,
   * `'read-write'` and `'mmap'`. Elsewhere than on Linux it is checked, and there is none.
   */
  cache?: boolean | FileCacheOptions | FileCache | undefined;
  /** Send `Content-Type` by extension. Default true. */
  contentType?: boolean | undefined;
  /** Names that begin with a dot: serve, 403, or 404. Default `'allow'`. */
  dotfiles?: 'allow' | 'deny' | 'ignore' | undefined;
  /**
   * Send an `ETag`: `'weak'`, of size and modification time in milliseconds; `'strong'`, of size, modification and change time
   * in nanoseconds, and weak while the file is younger than two seconds; or `'content'`, strong, a hash of the bytes, made
   * once for each version of a file when it is first requested, of another kind on Linux than elsewhere. Default true:
   * `'strong'` with `conformance: 'rfc9110'` and in the file server, else `'weak'`.
   */
  etag?: boolean | 'weak' | 'strong' | 'content' | undefined;
  /** Extensions (without dot) to try when a path without one names no file. Default none. */
  extensions?: string | string[] | undefined;
  /**
   * The file below the root that answers, with 200, for every path without an extension that names nothing: the page of a
   * single-page app. Default none.
   */
  fallback?: string | undefined;
  /**
   * Add `immutable` to `Cache-Control`. Default false. `'hashed'`: names with a content hash (`app-BH3kT9aZ.js`,
   * `app.8f3a0c1d.css`) get `public, max-age=31536000, immutable`, all others as with false.
   */
  immutable?: boolean | 'hashed' | undefined;
  /** Files that answer for a directory. Default `'index.html'`; false: none. */
  index?: string | string[] | false | undefined;
  /** Send `Last-Modified`. Default true. */
  lastModified?: boolean | undefined;
  /** `max-age`: milliseconds, or a string such as `'1d'`. At most a year. Default 0. */
  maxAge?: number | string | undefined;
  /** The same as `maxAge`. */
  maxage?: number | string | undefined;
  /** How the bytes are sent. Default `'auto'`. Elsewhere than on Linux it is checked, and they go through Node streams. */
  method?: Method | undefined;
  /**
   * Answer several ranges with `multipart/byteranges`: as many as the number, or 32 (true); the whole file for more.
   * Default false: always the whole file.
   */
  multipart?: boolean | number | undefined;
  /** Look for files stored in these codings, in the order of preference. True: br, gzip, deflate. Default false. */
  preCompressed?: boolean | Coding[] | undefined;
  /** A directory without its slash: 301 to the form with it (true), or its index in place (false). Default false. */
  redirect?: boolean | undefined;
  /**
   * Symbolic links: may lead anywhere, stay below the root (openat2(2)), or are refused with 403. Elsewhere than on Linux that
   * can be raced by who may make links below the root. Default `'follow'`.
   */
  symlinks?: 'follow' | 'beneath' | 'deny' | undefined;
}

/** What a single response can have besides, with another value each time: see `reply.sendFile`. */
export interface SliceOptions {
  /** First byte of the file; ranges count from here. Default 0. */
  start?: number | undefined;
  /** Last byte of the file. Default: its end. */
  end?: number | undefined;
  /** The longest answer to a range, in bytes; what is cut off is to be asked for again. Default: no limit. */
  maxContentRangeChunkSize?: number | undefined;
}

/** The cache of who does not say. */
export const DEFAULT_CACHE: FileCacheOptions = { maxFileSize: 65_536 };

const CODINGS: readonly Coding[] = ['br', 'gzip', 'deflate'];
/** Ranges in one answer at most, with `multipart: true`. */
const MOST_PARTS = 32;
const YEAR_MS = 365 * 24 * 60 * 60 * 1000;

/** The settings of a site with these roots and options. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. */
export function siteSettings(roots: string[], options: SiteOptions, listing: boolean): SiteSettings {
  const {
    cacheControl = true,
    dotfiles = 'allow',
    etag = true,
    fallback,
    immutable = false,
    method = 'auto',
  } = options;
  const { conformance = 'fastify-static', multipart = false, symlinks = 'follow' } = options;
  if (typeof etag === 'string' && etag !== 'weak' && etag !== 'strong' && etag !== 'content') {
    throw invalid('etag', etag, "true, false, 'weak', 'strong' or 'content'");
  }
  if (typeof immutable === 'string' && immutable !== 'hashed') {
    throw invalid('immutable', immutable, "true, false or 'hashed'");
  }
  if (fallback !== undefined && typeof fallback !== 'string') throw invalid('fallback', fallback, 'the name of a file');
  if (typeof multipart === 'number' && !(Number.isInteger(multipart) && multipart >= 2 && multipart <= 1000)) {
    throw invalid('multipart', multipart, 'a boolean, or an integer from 2 to 1000');
  }
  const settings: SiteSettings = {
    roots,
    index: list('index', options.index, ['index.html']),
    extensions: list('extensions', options.extensions, []),
    dotfiles,
    symlinks,
    redirect: options.redirect === true,
    preCompressed: codings(options.preCompressed),
    acceptRanges: Boolean(options.acceptRanges ?? true),
    immutable: immutable === true,
    immutableHashed: immutable === 'hashed',
    cacheRules: cacheRules(cacheControl),
    contentType: Boolean(options.contentType ?? true),
    etag: Boolean(etag),
    contentTags: etag === 'content',
    strongTags: etag === 'strong' || (etag === true && conformance === 'rfc9110'),
    lastModified: Boolean(options.lastModified ?? true),
    conformance,
    pathRules: 'full',
    maxRanges: typeof multipart === 'number' ? multipart : multipart ? MOST_PARTS : 1000,
    multipart: multipart !== false,
    listing,
    method,
  };
  if (fallback !== undefined) settings.fallback = fallback;
  if (options.cache instanceof FileCache) settings.cache = tokenOf(options.cache);
  if (cacheControl) settings.maxAge = maxAgeSeconds(options.maxAge ?? options.maxage);
  return settings;
}

/** What one response has in place of the options of its site. */
export type Overrides = Pick<RequestConditions, 'start' | 'last' | 'maxRangeLength' | 'maxAge'>;

/**
 * The parameters of one response among its `options`; `undefined` without any. `defaults`: where it leaves `maxAge` to those.
 * Throws `ERR_ZEROSEND_INVALID_ARGUMENT`.
 */
export function overridesOf(
  options: SliceOptions & Pick<SiteOptions, 'maxAge' | 'maxage'>,
  defaults: Pick<SiteOptions, 'maxAge' | 'maxage'>,
): Overrides | undefined {
  const overrides: Overrides = {};
  const start = bytes('start', options.start);
  const last = bytes('end', options.end);
  const longest = bytes('maxContentRangeChunkSize', options.maxContentRangeChunkSize);
  if (start) overrides.start = start;
  if (last !== undefined) overrides.last = last;
  // As @fastify/send: 0 is no limit.
  if (longest) overrides.maxRangeLength = longest;
  if ('maxAge' in options || 'maxage' in options) {
    const { maxAge, maxage } = { ...defaults, ...options };
    overrides.maxAge = maxAgeSeconds(maxAge ?? maxage);
  }
  for (const _ in overrides) return overrides;
  return undefined;
}

function bytes(name: string, value: number | undefined): number | undefined {
  if (value === undefined || (Number.isSafeInteger(value) && value >= 0)) return value;
  throw invalid(name, value, 'an integer number of bytes from 0 up');
}

function codings(value: boolean | Coding[] | undefined): Coding[] {
  if (!value) return [];
  if (value === true) return [...CODINGS];
  if (Array.isArray(value)) return value;
  throw invalid('preCompressed', value, "a boolean, or an array of 'zstd', 'br', 'gzip', 'deflate'");
}

function cacheRules(value: boolean | Record<string, string | false>): SiteSettings['cacheRules'] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).map(([pattern, header]) => {
    if (header === false) return { pattern };
    if (typeof header === 'string' && /^[\t\x20-\x7e]+$/.test(header)) return { pattern, value: header };
    throw invalid(`cacheControl['${pattern}']`, header, 'the value of a header, or false');
  });
}

function list(name: string, value: string | string[] | false | undefined, fallback: string[]): string[] {
  if (value === undefined) return fallback;
  if (value === false) return [];
  if (typeof value === 'string') return [value];
  if (Array.isArray(value) && value.every((entry) => typeof entry === 'string')) return value;
  throw invalid(name, value, 'a string, an array of strings, or false');
}

/** Out of range is brought into it and nonsense is 0, as @fastify/send does. */
function maxAgeSeconds(value: number | string | undefined): number {
  const milliseconds = typeof value === 'string' ? parseDuration(value) : Number(value ?? 0);
  if (milliseconds === undefined || Number.isNaN(milliseconds)) return 0;
  return Math.floor(Math.min(Math.max(0, milliseconds), YEAR_MS) / 1000);
}

/** An answer of a site. The same object for the same version of a file, as long as it is hot. */
export interface Answer extends SiteAnswer {
  /** The absolute path of the file or directory; empty when there is none. */
  readonly file: string;
  /** The answer depends on `Accept-Encoding`; `headers` leaves that to be merged into what `Vary` says already. */
  readonly varies: boolean;
}

// A site that nobody holds any more must not stay open in the engine.
const abandoned = new FinalizationRegistry<number>((token) => staticEngine().release(token));

/** A site in the engine. */
export class Site {
  /** Answers remembered at most; beyond it all are forgotten at once. */
  static readonly #MOST = 4096;
  readonly token: number;
  readonly roots: readonly string[];
  readonly options: SiteOptions;
  /** Its answers depend on `Accept-Encoding`. */
  readonly negotiates: boolean;
  readonly #answers = new Map<number, Answer>();
  readonly #listing: boolean;
  #parts: Site[] | undefined;
  #users = 0;
  #closed = false;

  /** @param listing directories are to be listed: without a slash they are found as directories, whatever index they have. */
  constructor(roots: string[], options: SiteOptions, listing = false) {
    const settings = siteSettings(roots, options, listing);
    this.roots = roots;
    this.options = options;
    this.#listing = listing;
    this.negotiates = settings.preCompressed.length > 0;
    this.token = staticEngine().openSite(settings);
    abandoned.register(this, this.token, this);
  }

  /** Closes it after its last user; requests under way still end. */
  close(): void {
    this.#closed = true;
    if (this.#users === 0) this.#release();
  }

  /** Keeps it open, though it is closed meanwhile, until the returned function is called once. */
  use(): () => void {
    this.#users += 1;
    return () => {
      this.#users -= 1;
      if (this.#closed && this.#users === 0) this.#release();
    };
  }

  /**
   * A site for each of its roots, in order and without the fallback, which is no root's own; then itself if it has one. They
   * close with it.
   */
  parts(): readonly Site[] {
    const { fallback, ...options } = this.options;
    this.#parts ??= this.roots.map((root) => new Site([root], options, this.#listing));
    return fallback === undefined ? this.#parts : [...this.#parts, this];
  }

  #release(): void {
    abandoned.unregister(this);
    staticEngine().release(this.token);
    for (const part of this.#parts ?? []) part.close();
  }

  /**
   * The answer to a request, at once, or `undefined` when the disk must be asked first: see {@link Site.respondLater}. Its
   * transfer, if it has bytes to send, is the engine's current one: hold it before anything else is asked.
   */
  respond(
    path: string,
    encoded: boolean,
    headOnly: boolean,
    conditions: RequestConditions | undefined,
  ): Answer | undefined {
    const id = staticEngine().respond(this.token, path, encoded, headOnly, 0, conditions);
    if (id < 0) return undefined;
    if (id === 0) return this.#complete(staticEngine().describeCurrent());
    let answer = this.#answers.get(id);
    if (answer === undefined) {
      answer = this.#complete(staticEngine().describeCurrent());
      if (this.#answers.size >= Site.#MOST) this.#answers.clear();
      this.#answers.set(id, answer);
    }
    return answer;
  }

  /** The answer to a request and the token of its transfer (0: no bytes), without keeping the event loop waiting for a disk. */
  async respondLater(
    path: string,
    encoded: boolean,
    headOnly: boolean,
    conditions: RequestConditions | undefined,
  ): Promise<{ answer: Answer; token: number }> {
    const event = await ask((number) =>
      staticEngine().respondLater(number, this.token, path, encoded, headOnly, 0, conditions),
    );
    return { answer: this.#complete(event.answer as SiteAnswer), token: event.token ?? 0 };
  }

  #complete(answer: SiteAnswer): Answer {
    const { kind, path, rootIndex } = answer;
    const file = kind === 'response' || kind === 'directory' ? join(this.roots[rootIndex] as string, path) : '';
    const vary = this.negotiates ? answer.headers.indexOf('vary') : -1;
    return {
      ...answer,
      headers: vary < 0 ? answer.headers : answer.headers.filter((_, at) => at !== vary && at !== vary + 1),
      file,
      varies: vary >= 0,
    };
  }
}

/** What `Vary` must be for an answer that depends on `Accept-Encoding`, given what it is already. */
export function varyWithEncoding(current: unknown): string {
  const value = Array.isArray(current) ? current.join(', ') : current === undefined ? undefined : String(current);
  return staticEngine().mergeVary(value) ?? (value as string);
}

/** What decides about a file whose response is not the 200 that preconditions and ranges are about. */
export function unconditional(
  headers: IncomingHttpHeaders,
  negotiates: boolean,
  overrides?: Overrides,
): RequestConditions | undefined {
  const acceptEncoding = negotiates ? headers['accept-encoding'] : undefined;
  if (acceptEncoding === undefined) return overrides;
  return { ...overrides, acceptEncoding: acceptEncoding as string };
}

/**
 * The request headers that decide, and the overrides, or `undefined` when there are none. `negotiates`: the coding is one of
 * them.
 */
export function conditionsOf(
  headers: IncomingHttpHeaders,
  negotiates: boolean,
  overrides?: Overrides,
): RequestConditions | undefined {
  const acceptEncoding = negotiates ? headers['accept-encoding'] : undefined;
  const range = headers.range;
  const ifNoneMatch = headers['if-none-match'];
  const ifModifiedSince = headers['if-modified-since'];
  const ifMatch = headers['if-match'];
  const ifUnmodifiedSince = headers['if-unmodified-since'];
  if (
    range === undefined &&
    ifNoneMatch === undefined &&
    ifModifiedSince === undefined &&
    ifMatch === undefined &&
    ifUnmodifiedSince === undefined &&
    acceptEncoding === undefined
  ) {
    return overrides;
  }
  const conditions: RequestConditions = { ...overrides };
  if (acceptEncoding !== undefined) conditions.acceptEncoding = acceptEncoding as string;
  if (range !== undefined) conditions.range = range;
  if (ifNoneMatch !== undefined) conditions.ifNoneMatch = ifNoneMatch;
  if (ifModifiedSince !== undefined) conditions.ifModifiedSince = ifModifiedSince;
  if (ifMatch !== undefined) conditions.ifMatch = ifMatch;
  if (ifUnmodifiedSince !== undefined) conditions.ifUnmodifiedSince = ifUnmodifiedSince;
  if (headers['if-range'] !== undefined) conditions.ifRange = headers['if-range'] as string;
  if (headers['cache-control'] !== undefined) conditions.cacheControl = headers['cache-control'];
  return conditions;
}
