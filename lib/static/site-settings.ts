/** Maps the options of static serving to the settings of the engine. */
import { parse as parseDuration } from '@lukeed/ms';
import type { SiteSettings } from '#native';
import { FileCache } from '../cache/file-cache.js';
import { idOf } from '../cache/handles.js';
import { invalid } from '../util/errors.js';
import type { Coding, SiteOptions } from './site-options.js';

const CODINGS: readonly Coding[] = ['br', 'gzip', 'deflate'];
/** The limit of ranges with `multipart: true`. */
const DEFAULT_MAX_RANGES = 32;
const YEAR_MS = 365 * 24 * 60 * 60 * 1000;

/**
 * The settings of a site for the engine. `listing`: directories may be listed. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`.
 */
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
  if (fallback !== undefined && typeof fallback !== 'string') throw invalid('fallback', fallback, 'a file name');
  if (typeof multipart === 'number' && !(Number.isInteger(multipart) && multipart >= 2 && multipart <= 1000)) {
    throw invalid('multipart', multipart, 'a boolean, or an integer from 2 to 1000');
  }
  const settings: SiteSettings = {
    roots,
    index: strings('index', options.index, ['index.html']),
    extensions: strings('extensions', options.extensions, []),
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
    maxRanges: typeof multipart === 'number' ? multipart : multipart ? DEFAULT_MAX_RANGES : 1000,
    multipart: multipart !== false,
    listing,
    method,
  };
  if (fallback !== undefined) settings.fallback = fallback;
  if (options.cache instanceof FileCache) settings.cache = idOf(options.cache);
  if (cacheControl) settings.maxAge = maxAgeSeconds(options.maxAge ?? options.maxage);
  return settings;
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
    throw invalid(`cacheControl['${pattern}']`, header, 'a header value, or false');
  });
}

function strings(name: string, value: string | string[] | false | undefined, fallback: string[]): string[] {
  if (value === undefined) return fallback;
  if (value === false) return [];
  if (typeof value === 'string') return [value];
  if (Array.isArray(value) && value.every((entry) => typeof entry === 'string')) return value;
  throw invalid(name, value, 'a string, an array of strings, or false');
}

/** `max-age` in seconds, limited to 0 to one year; 0 for what is not a duration, as in @fastify/send. */
export function maxAgeSeconds(value: number | string | undefined): number {
  const milliseconds = typeof value === 'string' ? parseDuration(value) : Number(value ?? 0);
  if (milliseconds === undefined || Number.isNaN(milliseconds)) return 0;
  return Math.floor(Math.min(Math.max(0, milliseconds), YEAR_MS) / 1000);
}
