/** The options of the front door: types and checks. */
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

/** Files and where they appear. */
export interface FrontDoorMount extends Omit<SiteOptions, 'cache'> {
  /** The directory: a path (relative to the working directory) or a `file:` URL; of several, the first that has the file. */
  root: Roots;
  /** Where the files appear: a literal path, without parameters. Default `'/'`. */
  prefix?: string | undefined;
  /**
   * Leave all requests below the prefix to Node, where hooks and middleware can authorize them. Meant for a prefix inside
   * that of another mount. Default false.
   */
  delegate?: boolean | undefined;
  /** Leave requests that carry `Authorization` or `Cookie` to Node. Default false. */
  private?: boolean | undefined;
  /** A path that names no file is left to Node, or is a 404 of the front door's own. Default `'node'`. */
  onMissing?: 'node' | '404' | undefined;
}

/** Bounds of the native side; all others are those of the `http.Server`: `maxConnections`, `headersTimeout`, ... */
export interface FrontDoorLimits {
  /** Connections at once that have not been handed over; 503 beyond. Default 16,384. */
  connections?: number | undefined;
  /** Of these, from one IP address; 503 beyond. Default 0: no bound. */
  connectionsPerAddress?: number | undefined;
  /** Milliseconds without a byte that the client acknowledges while a response is sent: cut. Default: the `timeout` of the server, or 30,000. */
  sendTimeout?: number | undefined;
  /** Bytes per second that a client must take, on average, after the first five seconds of a response: cut. Default 240. */
  minRate?: number | undefined;
  /**
   * Milliseconds for opening a file, and for each stretch of it that is read ahead, the wait for a thread included: beyond that
   * the request is left to Node, or the connection reset once a part of the response has been sent. Default 30,000.
   */
  diskTimeout?: number | undefined;
}

/** One mount, or `mounts`. */
export interface FrontDoorOptions<Mount extends FrontDoorMount = FrontDoorMount> extends Partial<FrontDoorMount> {
  /** Several mounts, instead of `root` and `prefix`; the longest prefix that a path begins with decides. */
  mounts?: readonly Mount[] | undefined;
  /** See {@link SiteOptions.cache}; one for all mounts. */
  cache?: SiteOptions['cache'];
  /**
   * Routes that Node answers though they are below a prefix, in the words of Fastify and Express: `'/static/config.json'`,
   * `'/static/reports/:id/*'`. Compared with the decoded path, without regard to case and slashes at the end. With Fastify,
   * the application's own routes are found without this. Default none.
   */
  excludeRoutes?: string | readonly string[] | undefined;
  /** Fields that every response has that is made of a file. Default none. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** Threads, 1 to 1,024. Default 1. */
  workers?: number | undefined;
  /** Connections that may wait to be taken by Node; while there are so many, no more are accepted. 1 to 65,535. Default 1,024. */
  queue?: number | undefined;
  /** The most bytes that one connection may send before others have their turn. Default 1 MiB. */
  chunkSize?: number | undefined;
  limits?: FrontDoorLimits | undefined;
}

/** Options, checked. */
export interface FrontDoorPlan<Mount extends FrontDoorMount = FrontDoorMount> {
  /** With its prefix and absolute roots. */
  mounts: readonly (Mount & { prefix: string; roots: string[] })[];
  settings: readonly MountSettings[];
  excludeRoutes: readonly string[];
  headers: Readonly<Record<string, string>>;
  headerPairs: string[];
  cache: FileCache | undefined;
  /** The cache is ours to close. */
  ownsCache: boolean;
  workers: number;
  queue: number;
  chunkSize: number;
  limits: FrontDoorLimits;
}

const LIMITS = ['connections', 'connectionsPerAddress', 'sendTimeout', 'minRate', 'diskTimeout'] as const;
/** Options of the plugin and the handler that only JavaScript could obey. */
const CALLBACKS = ['setHeaders', 'allowedPath', 'onFile'] as const;

/** Checks the options. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. `listing`: whether a mount lists directories. */
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
  if (!Array.isArray(given) || given.length === 0) throw invalid('mounts', given, 'an array with at least one mount');
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
    if (/[:*?#%]/.test(prefix)) throw invalid('prefix', prefix, 'a literal path, without parameters and escapes');
    if (prefixes.has(prefix)) {
      throw failure('ERR_ZEROSEND_INVALID_ARGUMENT', `duplicate prefix '${prefix}': use one mount with several roots`);
    }
    prefixes.add(prefix);
    return { ...mount, prefix, roots: rootPaths(mount.root) };
  });
}

/** The mount that a path is below. */
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

/** Whether a request is one that `private` is about. */
export function hasCredentials(headers: IncomingHttpHeaders): boolean {
  return headers.authorization !== undefined || headers.cookie !== undefined;
}
