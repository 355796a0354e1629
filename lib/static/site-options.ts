/** The options that all kinds of static serving share: the plugin, the handler, the front door and the file server. */
import type { FileCache } from '../cache/file-cache.js';
import type { FileCacheOptions } from '../cache/options.js';
import type { Method } from '../types/method.js';

/** The coding of a precompressed file, which has the suffix `.zst`, `.br`, `.gz` or `.deflate`. */
export type Coding = 'zstd' | 'br' | 'gzip' | 'deflate';

export interface SiteOptions {
  /** Send `Accept-Ranges` and answer `Range` requests. Default true. */
  acceptRanges?: boolean | undefined;
  /**
   * Send `Cache-Control`. Default true; false ignores `maxAge` and `immutable`. An object maps glob patterns (`*`, `**`, `?`,
   * `{a,b}`; a pattern without a slash matches the last path segment) to header values, or to false for no header. The first
   * match wins: `{ '*.html': 'no-cache', 'assets/**': 'public, max-age=31536000, immutable' }`. Files without a match are
   * served as with true.
   */
  cacheControl?: boolean | Record<string, string | false> | undefined;
  /**
   * Which behavior to follow where RFC 9110 and `@fastify/static` differ (suffix ranges longer than the file, `If-Range` with
   * a weak tag, `Range` on HEAD, ...). Default `'fastify-static'`.
   */
  conformance?: 'fastify-static' | 'rfc9110' | undefined;
  /**
   * Cache frequently requested files: a new cache with these options (`true`: the defaults of {@link FileCache}), or an existing
   * cache that may be shared. Default `{ maxFileSize: 65536 }`: small files only, held in memory and compared with the disk
   * for every request, so that responses stay the same and no file is held open. Used with the methods `'auto'`,
   * `'read-write'` and `'mmap'`. On other platforms than Linux the option is checked and nothing is cached.
   */
  cache?: boolean | FileCacheOptions | FileCache | undefined;
  /** Send `Content-Type`, chosen by the extension. Default true. */
  contentType?: boolean | undefined;
  /** Names that begin with a dot: serve them, answer 403, or answer 404. Default `'allow'`. */
  dotfiles?: 'allow' | 'deny' | 'ignore' | undefined;
  /**
   * Send `ETag`. `'weak'`: from size and modification time in milliseconds. `'strong'`: from size, modification time and
   * change time in nanoseconds; weak while the file is younger than two seconds. `'content'`: strong, a hash of the content,
   * computed at the first request for each version of a file; the hash on Linux differs from that on other platforms. Default
   * true: `'strong'` with `conformance: 'rfc9110'` and in the file server, otherwise `'weak'`.
   */
  etag?: boolean | 'weak' | 'strong' | 'content' | undefined;
  /** Extensions, without the dot, to try if a path without an extension names no file. Default none. */
  extensions?: string | string[] | undefined;
  /**
   * The file, relative to the root, that is served with status 200 for every path without an extension that names no file: the
   * page of a single-page application. Default none.
   */
  fallback?: string | undefined;
  /**
   * Add `immutable` to `Cache-Control`. Default false. `'hashed'`: names with a content hash (`app-BH3kT9aZ.js`,
   * `app.8f3a0c1d.css`) get `public, max-age=31536000, immutable`, all others as with false.
   */
  immutable?: boolean | 'hashed' | undefined;
  /** Names of the files that are served for a directory; false for none. Default `'index.html'`. */
  index?: string | string[] | false | undefined;
  /** Send `Last-Modified`. Default true. */
  lastModified?: boolean | undefined;
  /** The `max-age` of `Cache-Control`: milliseconds, or a string such as `'1d'`; at most one year. Default 0. */
  maxAge?: number | string | undefined;
  /** Alias of `maxAge`. */
  maxage?: number | string | undefined;
  /** How the bytes are sent. Default `'auto'`. On other platforms than Linux it is checked, and Node streams are used. */
  method?: Method | undefined;
  /**
   * Answer several ranges with `multipart/byteranges`: at most this many, or 32 (true); for more, the whole file is sent.
   * Default false: several ranges get the whole file.
   */
  multipart?: boolean | number | undefined;
  /** Serve precompressed files in these codings, in order of preference. True: br, gzip, deflate. Default false. */
  preCompressed?: boolean | Coding[] | undefined;
  /** A directory without a trailing slash: redirect with 301 (true), or serve its index (false). Default false. */
  redirect?: boolean | undefined;
  /**
   * Symbolic links may lead anywhere (`'follow'`), must stay below the root (`'beneath'`, openat2(2)), or are refused with 403
   * (`'deny'`). On other platforms than Linux, a user that can create links below the root can race the check. Default
   * `'follow'`.
   */
  symlinks?: 'follow' | 'beneath' | 'deny' | undefined;
}

/** The default of the `cache` option. */
export const DEFAULT_CACHE: FileCacheOptions = { maxFileSize: 65_536 };
