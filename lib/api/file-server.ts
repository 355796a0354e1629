/** `createFileServer`: the native file server. JavaScript starts it and reads its counters; requests do not reach JavaScript. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import type { MountSettings, ServerSettings } from '#native';
import { cacheOption } from '../cache/cache-option.js';
import type { FileCache } from '../cache/file-cache.js';
import { engine, request, requestHandle } from '../runtime/engine.js';
import { checkName } from '../runtime/output.js';
import { checkPrefix, headerPairs, type Roots, readLimits, rootPaths } from '../server/options.js';
import { type FileServerStatistics, noStatistics, readStatistics } from '../server/statistics.js';
import { DEFAULT_CACHE, type SiteOptions } from '../static/site-options.js';
import { siteSettings } from '../static/site-settings.js';
import { checkPath } from '../util/address.js';
import { failure, invalid } from '../util/errors.js';
import { checkInteger } from '../util/options.js';

/** Limits of a server. 0 means no limit, except for `headBytes` and `headers`. `stats().limits` counts how often each was reached. */
export interface FileServerLimits {
  /** Maximum number of open connections; more get 503. Default 16,384. */
  connections?: number | undefined;
  /** Maximum number of open connections from one IP address; more get 503. Default 0. */
  connectionsPerAddress?: number | undefined;
  /**
   * Maximum size of a request head in bytes, 256 to 1,048,576: longer ones get 431, or 414 if the request line alone is longer. Default
   * 16,384.
   */
  headBytes?: number | undefined;
  /** Maximum number of header fields of a request, 1 to 256; more get 431. Default 100. */
  headers?: number | undefined;
  /** Maximum number of requests on a connection, after which it is closed. Default 0. */
  requestsPerConnection?: number | undefined;
  /** Maximum size of a request body in bytes, which is read and discarded; longer ones get 413. Default 65,536. */
  bodyBytes?: number | undefined;
  /** Timeout in milliseconds for receiving a request head, and for a body: then 408. Default 15,000. */
  headTimeout?: number | undefined;
  /** Milliseconds after which a connection without a request is closed. Default 60,000. */
  idleTimeout?: number | undefined;
  /** Milliseconds without an acknowledged byte of a response, after which the connection is reset. Default 30,000. */
  sendTimeout?: number | undefined;
  /** Minimum average rate in bytes per second at which a client must receive a response, after the first five seconds. Default 240. */
  minRate?: number | undefined;
  /**
   * Timeout in milliseconds for opening a file, and for each read-ahead of it, including the wait for a thread: then 503, or a
   * reset if a part of the response has been sent. Default 30,000.
   */
  diskTimeout?: number | undefined;
}

export interface FileServerOptions extends Omit<SiteOptions, 'conformance' | 'index'> {
  /** The directory: a path (relative to the working directory) or a `file:` URL; of several, the first that contains the file is used. */
  root: Roots;
  /** The URL path of the files. Default `'/'`. */
  prefix?: string | undefined;
  /** The host name or IP address to listen on. Default `'127.0.0.1'`; `'::'` means all addresses. */
  host?: string | undefined;
  /** The port to listen on. Default 0: any free port. */
  port?: number | undefined;
  /**
   * The path of a Unix socket to listen on, instead of `host` and `port`. An existing socket on which no process listens is
   * replaced; for any other existing file, `listen` rejects with `EADDRINUSE`.
   */
  path?: string | undefined;
  /**
   * The permissions of the Unix socket, such as `0o660`: clients need write permission. Default: set by the umask, usually
   * 0o755.
   */
  socketMode?: number | undefined;
  /** Number of threads, 1 to 1,024. Default: the number of cores available to this process. */
  workers?: number | undefined;
  /** Allow other processes to listen on the same port (SO_REUSEPORT), such as workers of `node:cluster`. Default false. */
  reusePort?: boolean | undefined;
  /** Maximum number of connections that wait to be accepted, listen(2); limited by `somaxconn`. Default 4,096. */
  backlog?: number | undefined;
  /** Names of the files that are served for a directory; false for none. Default `'index.html'`. */
  index?: string | string[] | false | undefined;
  /**
   * List directories without an index: as HTML (true, `'html'`), or as JSON for clients that accept only JSON; or always as JSON
   * (`'json'`). Default false.
   */
  list?: boolean | 'html' | 'json' | undefined;
  /** Header fields added to every response. Default none. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** Send `Access-Control-Allow-Origin: *` and answer preflight requests. Default false. */
  cors?: boolean | undefined;
  /**
   * Log each request: the format, or format and file. Lines are appended to the file at `path`, which may be a FIFO with a reader;
   * without `path` they are written to standard output. `mode` is the permissions of a new file before the umask is applied, by
   * default `0o644`. Lines that cannot be written fast enough are dropped and counted as `logLost`. Default false.
   */
  log?: false | LogFormat | { format: LogFormat; path?: string | undefined; mode?: number | undefined } | undefined;
  /** The URL path of the metrics in the text format of Prometheus, such as `'/metrics'`. Default false: none. */
  metrics?: false | string | undefined;
  /** Maximum number of bytes sent on one connection before others are served. Default 1 MiB. */
  chunkSize?: number | undefined;
  limits?: FileServerLimits | undefined;
}

/** The format of the access log: one of the formats of Apache, or JSON. */
export type LogFormat = 'common' | 'combined' | 'json';

/** The address of a listening server. */
export type FileServerAddress = { host: string; port: number; url: string } | { path: string };

export interface FileServer {
  /**
   * Starts the server. Rejects with `EADDRINUSE`, `EACCES`, ..., and with `ERR_ZEROSEND_INVALID_ARGUMENT`. A listening server keeps
   * the process alive.
   */
  listen(): Promise<FileServerAddress>;
  /** The address; `undefined` before `listen` and after `close`. */
  readonly address: FileServerAddress | undefined;
  /** A copy of the counters; after `close`, the final values. */
  stats(): FileServerStatistics;
  /**
   * Reopens the log file at its path, after it was renamed or deleted. If it cannot be opened, rejects with the name of the errno, and
   * the open file stays in use.
   */
  reopen(): Promise<void>;
  /**
   * Graceful shutdown: accepts the connections in the backlog and no more, closes idle connections, waits for responses for at most
   * `drain` milliseconds (default 10,000), and resets the remaining connections. Resolves when everything is closed and the log is
   * written; lines that cannot be written within `drain` (500 ms or more) are counted in `logLost`. A second call can shorten
   * `drain`.
   */
  close(options?: { drain?: number | undefined }): Promise<void>;
}

const FORMATS = ['common', 'combined', 'json'];

/**
 * An HTTP/1.1 server for static files on native threads. Conforms to RFC 9110 and RFC 9112; responses are made by the same code
 * as those of the plugin and the handler.
 *
 * @throws `ERR_ZEROSEND_INVALID_ARGUMENT` with the name of the option.
 */
export function createFileServer(options: FileServerOptions): FileServer {
  const cache = cacheOption(options?.cache, DEFAULT_CACHE);
  const settings = readOptions({ ...options, cache }, cache);
  const logging = readLog(options.log);
  let state: 'new' | 'opening' | 'open' | 'closed' = 'new';
  let server = 0;
  let address: FileServerAddress | undefined;
  let exited: Promise<unknown> = Promise.resolve();
  let last: FileServerStatistics | undefined;

  const read = (): FileServerStatistics =>
    server === 0 ? (last ?? noStatistics(cache)) : readStatistics(server, cache);
  return {
    async listen() {
      if (state !== 'new')
        throw failure('ERR_ZEROSEND_CLOSED', 'a file server can listen only once; create another one');
      state = 'opening';
      try {
        if (settings.path === undefined) settings.host = await resolveHost(options.host ?? '127.0.0.1');
        // `close` may have been called while the host name was looked up.
        if ((state as string) === 'closed') throw failure('ERR_ZEROSEND_CLOSED', 'the file server was closed');
        const log = await openLog(logging);
        if ((state as string) === 'closed') {
          if (log !== undefined) engine().release(log);
          throw failure('ERR_ZEROSEND_CLOSED', 'the file server was closed');
        }
        exited = request((number) => {
          const opened = engine().openServer(number, log === undefined ? settings : { ...settings, log });
          server = opened.handle;
          address = addressOf(settings, opened);
        });
        // If the server was not opened, `exited` has rejected.
        if (server === 0) {
          if (log !== undefined) engine().release(log);
          await exited;
        }
      } catch (error) {
        state = 'closed';
        throw error;
      }
      state = 'open';
      return address as FileServerAddress;
    },
    get address() {
      return address;
    },
    stats: read,
    async reopen() {
      if (server === 0) throw failure('ERR_ZEROSEND_CLOSED', 'the file server is not listening');
      await request((number) => engine().reopenLog(server, number));
    },
    async close({ drain = 10_000 } = {}) {
      if (typeof drain !== 'number' || !(drain >= 0)) throw invalid('drain', drain, 'milliseconds from 0 up');
      state = 'closed';
      if (server === 0) return;
      engine().closeServer(server, Math.min(drain, 2 ** 31));
      await exited;
      if (server !== 0) {
        if (cache !== options.cache) cache?.close();
        last = readStatistics(server, cache);
        engine().release(server);
        server = 0;
        address = undefined;
      }
    },
  };
}

function readOptions(options: FileServerOptions, cache: FileCache | undefined): ServerSettings {
  const { port = 0, workers = availableParallelism(), backlog = 4096, prefix = '/', list = false } = options;
  const { metrics = false, headers = {}, chunkSize = 1024 * 1024 } = options;
  checkInteger('port', port, 0, 65_535);
  checkInteger('workers', workers, 1, 1024);
  checkInteger('backlog', backlog, 1, 65_535);
  checkInteger('chunkSize', chunkSize, 1, Number.MAX_SAFE_INTEGER);
  if (list !== true && list !== false && list !== 'html' && list !== 'json') {
    throw invalid('list', list, "true, false, 'html' or 'json'");
  }
  if (metrics !== false && typeof metrics !== 'string') throw invalid('metrics', metrics, 'a URL path, or false');
  const mount: MountSettings = {
    prefix: checkPrefix(prefix),
    excludeCredentials: false,
    respondNotFound: false,
    site: {
      ...siteSettings(
        rootPaths(options.root),
        { redirect: true, multipart: true, ...options, conformance: 'rfc9110', cache },
        list !== false,
      ),
      pathRules: 'full',
    },
  };
  if (list !== false) mount.list = list === true ? 'html' : list;
  const settings: ServerSettings = {
    port,
    backlog,
    reusePort: options.reusePort === true,
    workers,
    mounts: [mount],
    headers: headerPairs(headers),
    cors: options.cors === true,
    chunk: chunkSize,
    limits: readLimits(options.limits ?? {}),
  };
  if (options.cors === true) settings.headers.push('access-control-allow-origin', '*');
  if (options.path !== undefined) {
    if (typeof options.path !== 'string') throw invalid('path', options.path, 'the path of a socket');
    settings.path = checkPath('path', options.path);
  }
  if (options.socketMode !== undefined) {
    checkInteger('socketMode', options.socketMode, 0, 0o777);
    if (options.path === undefined) {
      throw failure('ERR_ZEROSEND_INVALID_ARGUMENT', 'socketMode can only be used with a Unix socket');
    }
    settings.socketMode = options.socketMode;
  }
  if (metrics !== false) settings.metrics = metrics;
  return settings;
}

interface Logging {
  format: LogFormat;
  path: string | undefined;
  mode: number;
}

function readLog(log: FileServerOptions['log'] = false): Logging | undefined {
  if (log === false) return undefined;
  const { format, path: name, mode = 0o644 } = typeof log === 'string' ? { format: log } : { ...log };
  if (!FORMATS.includes(format)) throw invalid('log', format ?? log, "false, 'common', 'combined' or 'json'");
  if (name !== undefined) checkName('log.path', name);
  checkInteger('log.mode', mode, 0, 0o777);
  return { format, path: name === undefined ? undefined : path.resolve(name), mode };
}

async function openLog(logging: Logging | undefined): Promise<number | undefined> {
  if (logging === undefined) return undefined;
  const { format, path: name, mode } = logging;
  return requestHandle((number) => engine().openLog(number, format, name, mode));
}

async function resolveHost(host: string): Promise<string> {
  if (typeof host !== 'string' || host === '') throw invalid('host', host, 'a host name or an IP address');
  return isIP(host) === 0 ? (await lookup(host)).address : host;
}

function addressOf(settings: ServerSettings, opened: { host?: string; port: number }): FileServerAddress {
  const { host, port } = opened;
  if (host === undefined) return { path: settings.path as string };
  const shown = host === '::' || host === '0.0.0.0' ? 'localhost' : isIP(host) === 6 ? `[${host}]` : host;
  return { host, port, url: `http://${shown}:${port}${settings.mounts[0]?.prefix ?? '/'}` };
}
