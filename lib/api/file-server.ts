/** `createFileServer`: the native server of files. JavaScript starts it and reads its counters; requests never come here. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import type { MountSettings, ServerSettings } from '#native';
import { cacheOption } from '../cache/cache-option.js';
import type { FileCache } from '../cache/file-cache.js';
import { ask, engine } from '../runtime/engine.js';
import { checkName, open } from '../runtime/output.js';
import { checkPrefix, headerPairs, type Roots, readLimits, rootPaths } from '../server/options.js';
import { type FileServerStatistics, noStatistics, readStatistics } from '../server/statistics.js';
import { DEFAULT_CACHE, type SiteOptions } from '../static/site-options.js';
import { siteSettings } from '../static/site-settings.js';
import { checkPath } from '../util/address.js';
import { failure, invalid } from '../util/errors.js';
import { checkInteger } from '../util/options.js';

/** What a server puts up with. 0 means no bound, except for `headBytes` and `headers`. Each is counted when it is met. */
export interface FileServerLimits {
  /** Connections at once; 503 beyond. Default 16,384. */
  connections?: number | undefined;
  /** Connections at once from one IP address; 503 beyond. Default 0. */
  connectionsPerAddress?: number | undefined;
  /** Bytes of a request's head: 431, or 414 when the request line alone is longer. 256 to 1,048,576. Default 16,384. */
  headBytes?: number | undefined;
  /** Fields of a head: 431 beyond. 1 to 256. Default 100. */
  headers?: number | undefined;
  /** Requests on one connection, after which it is closed. Default 0. */
  requestsPerConnection?: number | undefined;
  /** Bytes of a request's body, which are read and discarded: 413 beyond. Default 65,536. */
  bodyBytes?: number | undefined;
  /** Milliseconds from the first byte of a head to its last, and for a body: 408. Default 15,000. */
  headTimeout?: number | undefined;
  /** Milliseconds without a request: closed. Default 60,000. */
  idleTimeout?: number | undefined;
  /** Milliseconds without a byte that the client acknowledges while a response is sent: cut. Default 30,000. */
  sendTimeout?: number | undefined;
  /** Bytes per second that a client must take, on average, after the first five seconds of a response: cut. Default 240. */
  minRate?: number | undefined;
  /**
   * Milliseconds for opening a file, and for each stretch of it that is read ahead, the wait for a thread included: 503, or a
   * reset once a part of the response has been sent. Default 30,000.
   */
  diskTimeout?: number | undefined;
}

export interface FileServerOptions extends Omit<SiteOptions, 'conformance' | 'index'> {
  /** The directory: a path (relative to the working directory) or a `file:` URL; of several, the first that has the file. */
  root: Roots;
  /** Where the files appear. Default `'/'`. */
  prefix?: string | undefined;
  /** A host name or IP address to listen on. Default `'127.0.0.1'`; `'::'` is all addresses of this machine. */
  host?: string | undefined;
  /** Default 0: the kernel chooses. */
  port?: number | undefined;
  /**
   * The path of a Unix socket to listen on, instead of `host` and `port`. A socket that is there and that no process listens on
   * is replaced; `EADDRINUSE` for everything else.
   */
  path?: string | undefined;
  /**
   * The mode of the file of the Unix socket, such as `0o660`: clients need the right to write. Default: what the umask leaves,
   * 0o755 as a rule.
   */
  socketMode?: number | undefined;
  /** Threads, 1 to 1,024. Default: as many as there are cores for this process. */
  workers?: number | undefined;
  /** Let other processes listen on the same port, such as the workers of `node:cluster`. Default false. */
  reusePort?: boolean | undefined;
  /** Connections that wait to be accepted, listen(2). Default 4,096; the kernel's `somaxconn` bounds it. */
  backlog?: number | undefined;
  /** Files that answer for a directory. Default `'index.html'`; false: none. */
  index?: string | string[] | false | undefined;
  /** List directories without an index: as a page (true, `'html'`), which is JSON for who accepts only that, or `'json'`. Default false. */
  list?: boolean | 'html' | 'json' | undefined;
  /** Fields that every response has. Default none. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** `Access-Control-Allow-Origin: *` in every response, and an answer to preflight requests. Default false. */
  cors?: boolean | undefined;
  /**
   * Write down each request: the form of a line, or form and file, which is appended to. Default false; without a file it is the
   * standard output. `path` may name a FIFO that has a reader. `mode` is the permission bits of a file that is made, less the
   * umask, by default `0o644`. Lines that cannot be written in time are lost and counted as `logLost`.
   */
  log?: false | LogFormat | { format: LogFormat; path?: string | undefined; mode?: number | undefined } | undefined;
  /** The path of the counters in Prometheus' text form, such as `'/metrics'`. Default false: none. */
  metrics?: false | string | undefined;
  /** The most bytes that one connection may send before others have their turn. Default 1 MiB. */
  chunkSize?: number | undefined;
  limits?: FileServerLimits | undefined;
}

/** The form of a line of the access log: those of Apache, or a JSON object. */
export type LogFormat = 'common' | 'combined' | 'json';

/** Where a server listens. */
export type FileServerAddress = { host: string; port: number; url: string } | { path: string };

export interface FileServer {
  /**
   * Listens and serves. Rejects with `EADDRINUSE`, `EACCES`, ..., and with `ERR_ZEROSEND_INVALID_ARGUMENT` for options that
   * cannot be meant. While it listens it keeps the process alive.
   */
  listen(): Promise<FileServerAddress>;
  /** Where it listens; `undefined` before `listen` and after `close`. */
  readonly address: FileServerAddress | undefined;
  /** What it has counted; after `close` the last counts. */
  stats(): FileServerStatistics;
  /**
   * Opens the log by its name again, after it was renamed or deleted. Rejects with the errno's name when it cannot be opened, and goes
   * on with the file it has.
   */
  reopen(): Promise<void>;
  /**
   * Accepts the connections that are in the backlog and no more, closes idle ones, lets responses end for `drain` milliseconds
   * (default 10,000), and resets what is left. Settles when all is closed and the log is written; lines that cannot be written
   * within `drain` (at least 500 ms) are counted in `logLost`. Called again with a shorter `drain` it hurries.
   */
  close(options?: { drain?: number | undefined }): Promise<void>;
}

const FORMATS = ['common', 'combined', 'json'];

/**
 * A server of static files, HTTP/1.1, on native threads. It follows RFC 9110 and RFC 9112, and answers files by the same
 * code as the plugin and the handler.
 *
 * @throws `ERR_ZEROSEND_INVALID_ARGUMENT`, naming the option, its value and what is allowed.
 */
export function createFileServer(options: FileServerOptions): FileServer {
  const cache = cacheOption(options?.cache, DEFAULT_CACHE);
  const settings = readOptions({ ...options, cache }, cache);
  const logging = readLog(options.log);
  let state: 'new' | 'opening' | 'open' | 'closed' = 'new';
  let token = 0;
  let address: FileServerAddress | undefined;
  let ended: Promise<unknown> = Promise.resolve();
  let last: FileServerStatistics | undefined;

  const read = (): FileServerStatistics => (token === 0 ? (last ?? noStatistics(cache)) : readStatistics(token, cache));
  return {
    async listen() {
      if (state !== 'new') throw failure('ERR_ZEROSEND_CLOSED', 'a file server listens once; create another');
      state = 'opening';
      try {
        if (settings.path === undefined) settings.host = await resolveHost(options.host ?? '127.0.0.1');
        // It may have been closed while the name was looked up.
        if ((state as string) === 'closed') throw failure('ERR_ZEROSEND_CLOSED', 'the file server was closed');
        const log = await openLog(logging);
        if ((state as string) === 'closed') {
          if (log !== undefined) engine().release(log);
          throw failure('ERR_ZEROSEND_CLOSED', 'the file server was closed');
        }
        ended = ask((number) => {
          const opened = engine().openServer(number, log === undefined ? settings : { ...settings, log });
          token = opened.token;
          address = addressOf(settings, opened);
        });
        // A refusal is thrown at once; the end comes later and is nobody's failure.
        if (token === 0) {
          if (log !== undefined) engine().release(log);
          await ended;
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
      if (token === 0) throw failure('ERR_ZEROSEND_CLOSED', 'the file server does not listen');
      await ask((number) => engine().reopenLog(token, number));
    },
    async close({ drain = 10_000 } = {}) {
      if (typeof drain !== 'number' || !(drain >= 0)) throw invalid('drain', drain, 'milliseconds from 0 up');
      state = 'closed';
      if (token === 0) return;
      engine().closeServer(token, Math.min(drain, 2 ** 31));
      await ended;
      if (token !== 0) {
        if (cache !== options.cache) cache?.close();
        last = readStatistics(token, cache);
        engine().release(token);
        token = 0;
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
  if (metrics !== false && typeof metrics !== 'string') throw invalid('metrics', metrics, 'a path, or false');
  const mount: MountSettings = {
    prefix: checkPrefix(prefix),
    private: false,
    answersMissing: false,
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
  return open((request) => engine().openLog(request, format, name, mode));
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
