/** The options of the front door. */
import type { IncomingHttpHeaders } from 'node:http';
import type { MountSettings } from '#native';
import { cacheOption } from '../cache/cache-option.js';
import type { FileCache } from '../cache/file-cache.js';
import type { FileCacheOptions } from '../cache/options.js';
import { checkPrefix, headerPairs, type Roots, readLimits, rootPaths } from '../server/options.js';
import { DEFAULT_CACHE, type SiteOptions } from '../static/site-options.js';
import { siteSettings } from '../static/site-settings.js';
import { failure, invalid } from '../util/errors.js';
import { checkInteger } from '../util/options.js';

/** Directories and the prefix under which their files are served. */
export interface FrontDoorMount extends Omit<SiteOptions, 'cache'> {
  /** The directory: a path (relative to the working directory) or a `file:` URL; of several, the first that contains the file is used. */
  root: Roots;
  /** The URL path of the files, without parameters. Default `'/'`. */
  prefix?: string | undefined;
  /**
   * Hand off all requests below the prefix to Node, where hooks and middleware can authorize them. Meant for a prefix below that
   * of another mount. Default false.
   */
  delegate?: boolean | undefined;
  /** Hand off requests with `Authorization` or `Cookie` to Node. Default false. */
  private?: boolean | undefined;
  /** If a file does not exist: hand off the request to Node, or answer 404. Default `'node'`. */
  onMissing?: 'node' | '404' | undefined;
}

/** Limits of the native threads. All other limits are those of the `http.Server`: `maxConnections`, `headersTimeout`, ... */
export interface FrontDoorLimits {
  /** Maximum number of open connections that are not handed off; more get 503. Default 16,384. */
  connections?: number | undefined;
  /** Maximum number of these from one IP address; more get 503. Default 0: no limit. */
  connectionsPerAddress?: number | undefined;
  /**
   * Milliseconds without an acknowledged byte of a response, after which the connection is reset. Default: the `timeout` of the
   * server, or 30,000.
   */
  sendTimeout?: number | undefined;
  /** Minimum average rate in bytes per second at which a client must receive a response, after the first five seconds. Default 240. */
  minRate?: number | undefined;
  /**
   * Timeout in milliseconds for opening a file, and for each read-ahead of it, including the wait for a thread: then the request
   * is handed off to Node, or the connection is reset if a part of the response has been sent. Default 30,000.
   */
  diskTimeout?: number | undefined;
}

/** Options of the front door: those of a single mount, or `mounts`. */
export interface FrontDoorOptions<Mount extends FrontDoorMount = FrontDoorMount> extends Partial<FrontDoorMount> {
  /** Several mounts, instead of `root` and `prefix`. The mount with the longest matching prefix is used. */
  mounts?: readonly Mount[] | undefined;
  /** See {@link SiteOptions.cache}. Shared by all mounts. */
  cache?: SiteOptions['cache'];
  /**
   * Routes below a prefix that are handed off to Node, in the syntax of Fastify and Express: `'/static/config.json'`,
   * `'/static/reports/:id/*'`. Compared with the decoded path, ignoring case and trailing slashes. With Fastify, the routes of the
   * application are excluded automatically. Default none.
   */
  excludeRoutes?: string | readonly string[] | undefined;
  /** Header fields added to every response with a file. Default none. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** Number of threads, 1 to 1,024. Default 1. */
  workers?: number | undefined;
  /** Maximum number of connections that wait for Node, 1 to 65,535. While it is reached, no connections are accepted. Default 1,024. */
  queue?: number | undefined;
  /** Maximum number of bytes sent on one connection before others are served. Default 1 MiB. */
  chunkSize?: number | undefined;
  limits?: FrontDoorLimits | undefined;
}

/** The checked options. */
export interface FrontDoorPlan<Mount extends FrontDoorMount = FrontDoorMount> {
  /** Mounts with their prefixes and absolute roots. */
  mounts: readonly (Mount & { prefix: string; roots: string[] })[];
  settings: readonly MountSettings[];
  excludeRoutes: readonly string[];
  headers: Readonly<Record<string, string>>;
  headerPairs: string[];
  cache: FileCache | undefined;
  /** The cache was created for the front door, which must close it. */
  ownsCache: boolean;
  workers: number;
  queue: number;
  chunkSize: number;
  limits: FrontDoorLimits;
}

const LIMITS = ['connections', 'connectionsPerAddress', 'sendTimeout', 'minRate', 'diskTimeout'] as const;
/** Options of the plugin and the handler that require JavaScript. */
const CALLBACKS = ['setHeaders', 'allowedPath', 'onFile'] as const;

/** Checks the options. `listing` returns whether a mount lists directories. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. */
export function planFrontDoor<Mount extends FrontDoorMount>(
  options: FrontDoorOptions<Mount>,
  listing: (mount: Mount) => boolean,
): FrontDoorPlan<Mount> {
  if (typeof options !== 'object' || options === null) throw invalid('options', options, 'an object with a root');
  const { excludeRoutes = [], headers = {}, workers = 1, queue = 1024, chunkSize = 1024 * 1024, limits = {} } = options;
  checkInteger('workers', workers, 1, 1024);
  checkInteger('queue', queue, 1, 65_535);
  checkInteger('chunkSize', chunkSize, 1, Number.MAX_SAFE_INTEGER);
  readLimits(limits, LIMITS);
  const cache = cacheOption(options.cache as boolean | FileCacheOptions | FileCache | undefined, DEFAULT_CACHE);
  const mounts = checkMounts(options);
  const patterns = typeof excludeRoutes === 'string' ? [excludeRoutes] : [...excludeRoutes];
  for (const pattern of patterns) {
    if (typeof pattern !== 'string' || !/^[/*]/.test(pattern))
      throw invalid('excludeRoutes', pattern, 'routes such as /a/:b/*');
  }
  const open = mounts.filter((mount) => mount.delegate !== true);
  return {
    mounts,
    settings: open.map((mount) => ({
      prefix: mount.prefix,
      site: siteSettings(mount.roots, { ...mount, cache }, listing(mount)),
      excludeCredentials: mount.private === true,
      respondNotFound: mount.onMissing === '404',
    })),
    excludeRoutes: [
      ...patterns,
      ...mounts.filter((mount) => mount.delegate === true).map((mount) => `${mount.prefix}*`),
    ],
    headers,
    headerPairs: headerPairs(headers),
    cache,
    ownsCache: cache !== options.cache,
    workers,
    queue,
    chunkSize,
    limits,
  };
}

function checkMounts<Mount extends FrontDoorMount>(
  options: FrontDoorOptions<Mount>,
): (Mount & { prefix: string; roots: string[] })[] {
  if (options.mounts !== undefined && options.root !== undefined) {
    throw failure('ERR_ZEROSEND_INVALID_ARGUMENT', 'root cannot be combined with mounts: add it to the mounts');
  }
  const { mounts: given = [options as unknown as Mount] } = options;
  if (!Array.isArray(given) || given.length === 0)
    throw invalid('mounts', given, 'an array of mounts that is not empty');
  const prefixes = new Set<string>();
  return (given as readonly Mount[]).map((mount) => {
    for (const name of CALLBACKS) {
      const value = (mount as Record<string, unknown>)[name];
      if (value !== undefined) {
        throw failure(
          'ERR_ZEROSEND_INVALID_ARGUMENT',
          `${name} cannot be used with a front door, which runs no JavaScript: set delegate: true`,
        );
      }
    }
    const { onMissing = 'node' } = mount;
    if (onMissing !== 'node' && onMissing !== '404') throw invalid('onMissing', onMissing, "'node' or '404'");
    const prefix = checkPrefix(mount.prefix ?? '/');
    if (/[:*?#%]/.test(prefix)) throw invalid('prefix', prefix, 'a path without parameters and escapes');
    if (prefixes.has(prefix)) {
      throw failure('ERR_ZEROSEND_INVALID_ARGUMENT', `duplicate prefix '${prefix}': use one mount with several roots`);
    }
    prefixes.add(prefix);
    return { ...mount, prefix, roots: rootPaths(mount.root) };
  });
}

/** The mount with the longest prefix of a path. */
export function findMount<Mount extends { prefix: string }>(
  mounts: readonly Mount[],
  pathname: string,
): Mount | undefined {
  let found: Mount | undefined;
  for (const mount of mounts) {
    if (pathname.startsWith(mount.prefix) && mount.prefix.length > (found?.prefix.length ?? 0)) found = mount;
  }
  return found;
}

/** Whether a request has credentials: see `private`. */
export function hasCredentials(headers: IncomingHttpHeaders): boolean {
  return headers.authorization !== undefined || headers.cookie !== undefined;
}
