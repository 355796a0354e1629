/** Sites: the options of static serving in the engine's words, and requests to the engine. */
import type { IncomingHttpHeaders } from 'node:http';
import { join } from 'node:path';

import { parse as parseDuration } from '@lukeed/ms';

import { ask, engine } from './engine.js';
import { invalid } from './errors.js';
import type { RequestConditions, SiteAnswer, SiteSettings } from './native.js';
import type { Method } from './send-file.js';

/** What every way of static serving takes. */
export interface SiteOptions {
  /** Send `Accept-Ranges` and answer `Range`. Default true. */
  acceptRanges?: boolean | undefined;
  /** Send `Cache-Control`. Default true; false ignores `maxAge` and `immutable`. */
  cacheControl?: boolean | undefined;
  /** Send `Content-Type` by extension. Default true. */
  contentType?: boolean | undefined;
  /** Names that begin with a dot: serve, 403, or 404. Default `'allow'`. */
  dotfiles?: 'allow' | 'deny' | 'ignore' | undefined;
  /** Send a weak `ETag` of size and modification time. Default true. */
  etag?: boolean | undefined;
  /** Extensions (without dot) to try when a path without one names no file. Default none. */
  extensions?: string | string[] | undefined;
  /** Add `immutable` to `Cache-Control`. Default false. */
  immutable?: boolean | undefined;
  /** Files that answer for a directory. Default `'index.html'`; false: none. */
  index?: string | string[] | false | undefined;
  /** Send `Last-Modified`. Default true. */
  lastModified?: boolean | undefined;
  /** `max-age`: milliseconds, or a string such as `'1d'`. At most a year. Default 0. */
  maxAge?: number | string | undefined;
  /** The same as `maxAge`. */
  maxage?: number | string | undefined;
  /** A directory without its slash: 301 to the form with it (true), or its index in place (false). Default false. */
  redirect?: boolean | undefined;
  /** How the bytes are sent. Default `'auto'`. */
  method?: Method | undefined;
}

const YEAR_MS = 365 * 24 * 60 * 60 * 1000;

/** The settings of a site with these roots and options. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. */
export function siteSettings(roots: string[], options: SiteOptions): SiteSettings {
  const { dotfiles = 'allow', method = 'auto' } = options;
  const settings: SiteSettings = {
    roots,
    index: list('index', options.index, ['index.html']),
    extensions: list('extensions', options.extensions, []),
    dotfiles,
    symlinks: 'follow',
    redirect: options.redirect === true,
    preCompressed: [],
    acceptRanges: options.acceptRanges ?? true,
    immutable: options.immutable ?? false,
    contentType: options.contentType ?? true,
    etag: options.etag ?? true,
    lastModified: options.lastModified ?? true,
    conformance: 'fastify-static',
    maxRanges: 1000,
    multipart: false,
    method,
  };
  if (options.cacheControl ?? true) settings.maxAge = maxAgeSeconds(options.maxAge ?? options.maxage);
  return settings;
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
  /** The file's absolute path; empty when there is none. */
  readonly file: string;
}

/** A site in the engine. */
export class Site {
  /** Answers remembered at most; beyond it all are forgotten at once. */
  static readonly #MOST = 4096;
  readonly token: number;
  readonly roots: readonly string[];
  readonly #answers = new Map<number, Answer>();

  constructor(roots: string[], options: SiteOptions) {
    this.roots = roots;
    this.token = engine().openSite(siteSettings(roots, options));
  }

  /** Lets it go; requests under way still end. */
  close(): void {
    engine().release(this.token);
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
    const id = engine().respond(this.token, path, encoded, headOnly, 0, conditions);
    if (id < 0) return undefined;
    if (id === 0) return this.#complete(engine().describeCurrent());
    let answer = this.#answers.get(id);
    if (answer === undefined) {
      answer = this.#complete(engine().describeCurrent());
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
      engine().respondLater(number, this.token, path, encoded, headOnly, 0, conditions),
    );
    return { answer: this.#complete(event.answer as SiteAnswer), token: event.token ?? 0 };
  }

  #complete(answer: SiteAnswer): Answer {
    const file = answer.kind === 'response' ? join(this.roots[answer.rootIndex] as string, answer.path) : '';
    return { ...answer, file };
  }
}

/** The request headers that decide, or `undefined` when there are none. */
export function conditionsOf(headers: IncomingHttpHeaders): RequestConditions | undefined {
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
    ifUnmodifiedSince === undefined
  ) {
    return undefined;
  }
  const conditions: RequestConditions = {};
  if (range !== undefined) conditions.range = range;
  if (ifNoneMatch !== undefined) conditions.ifNoneMatch = ifNoneMatch;
  if (ifModifiedSince !== undefined) conditions.ifModifiedSince = ifModifiedSince;
  if (ifMatch !== undefined) conditions.ifMatch = ifMatch;
  if (ifUnmodifiedSince !== undefined) conditions.ifUnmodifiedSince = ifUnmodifiedSince;
  if (headers['if-range'] !== undefined) conditions.ifRange = headers['if-range'] as string;
  if (headers['cache-control'] !== undefined) conditions.cacheControl = headers['cache-control'];
  return conditions;
}
