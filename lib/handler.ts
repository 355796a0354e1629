/** `createStaticHandler`: static files for `node:http`, Express and Connect. */
import { type Stats, statSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import path from 'node:path';

import { FileBody } from './body.js';
import { staticEngine } from './engine.js';
import { invalid, type ZerosendError } from './errors.js';
import { cacheOption } from './file-cache.js';
import { keepHalfOpen } from './half-open.js';
import { isPlainResponse } from './internals.js';
import { sendBody } from './response.js';
import { type Answer, conditionsOf, DEFAULT_CACHE, Site, type SiteOptions, varyWithEncoding } from './site.js';
import { otherNames } from './static/names.js';
import { rootPath } from './static/options.js';
import { decodePath, withSlash } from './static/paths.js';
import { type Road, type StaticStatistics, Statistics } from './static/statistics.js';

export interface StaticHandlerOptions extends SiteOptions {
  /**
   * False makes it a miss. Asked for the path of the request (decoded, below the mount), and again for that of the file
   * when it is another (an index, an extension, a fallback). Default: all are allowed.
   */
  allowedPath?: ((path: string, request: IncomingMessage) => boolean) | undefined;
  /** Has the last word on the headers, for every response that has a file: 200, 206, 304. */
  setHeaders?: ((response: ServerResponse, path: string, stat: Stats) => void) | undefined;
  /** Called with the file before it is sent, and awaited; what it throws goes to `next`, or is a 500. */
  onFile?: ((path: string, stat: Stats) => void | Promise<void>) | undefined;
}

/** A listener for `http.createServer`, or middleware for Express and Connect. */
export interface StaticHandler {
  /**
   * Answers GET and HEAD of files. With `next`, everything that is no file is left to it: other methods, names that are
   * missing or refused; it is called with an error when the disk fails. Without, they are 404, 403, 405 and 500.
   */
  (request: IncomingMessage, response: ServerResponse, next?: (error?: unknown) => void): void;
  /** Counts since it was made, as a copy. */
  stats(): StaticStatistics;
  /** Lets go of what it holds. Responses under way still end; later requests are misses. */
  close(): void;
}

/** What is decided about a request without a file. */
const REFUSALS: Partial<Record<Answer['kind'], number>> = { forbidden: 403, 'bad-path': 400, directory: 404 };

/**
 * Serves the files below `root` (an absolute path or a `file:` URL; of several the first that has the file).
 *
 * On Linux the bytes go past JavaScript; elsewhere through Node streams, with the same answers and options, and without a cache.
 *
 * Throws `ERR_ZEROSEND_INVALID_ARGUMENT` for options that are wrong, `ERR_ZEROSEND_UNSUPPORTED` on Linux without the native part.
 */
export function createStaticHandler(
  root: string | URL | (string | URL)[],
  options: StaticHandlerOptions = {},
): StaticHandler {
  const roots = (Array.isArray(root) ? root : [root]).map((one) => checkRoot(one));
  for (const name of ['allowedPath', 'setHeaders', 'onFile'] as const) {
    const value: unknown = options[name];
    if (value !== undefined && typeof value !== 'function') throw invalid(name, value, 'a function');
  }
  const cache = cacheOption(options.cache, DEFAULT_CACHE);
  const site = new Site(roots, { ...options, cache });
  const statistics = new Statistics(cache);
  let closed = false;
  const handler = (request: IncomingMessage, response: ServerResponse, next?: (error?: unknown) => void): void => {
    const exchange = new Exchange(site, options, statistics, request, response, next);
    if (closed) exchange.miss(404);
    else void exchange.run();
  };
  return Object.assign(handler, {
    stats: () => statistics.read(),
    close: () => {
      closed = true;
      site.close();
      if (cache !== options.cache) cache?.close();
    },
  });
}

function checkRoot(root: unknown): string {
  const directory = root instanceof URL && root.protocol !== 'file:' ? root : rootPath(root as string | URL);
  if (typeof directory === 'string' && path.isAbsolute(directory)) return directory;
  throw invalid('root', root, 'an absolute path or a file: URL');
}

/** One request and its response. */
class Exchange {
  readonly #site: Site;
  readonly #options: StaticHandlerOptions;
  readonly #statistics: Statistics;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #next: ((error?: unknown) => void) | undefined;

  constructor(
    site: Site,
    options: StaticHandlerOptions,
    statistics: Statistics,
    request: IncomingMessage,
    response: ServerResponse,
    next: ((error?: unknown) => void) | undefined,
  ) {
    this.#site = site;
    this.#options = options;
    this.#statistics = statistics;
    this.#request = request;
    this.#response = response;
    this.#next = next;
  }

  async run(): Promise<void> {
    const { method, url = '/' } = this.#request;
    if (method !== 'GET' && method !== 'HEAD') {
      this.miss(405);
      return;
    }
    // A client that half-closes while the disk or a callback is asked still wants its answer.
    const release = keepHalfOpen(this.#response, 'lookups');
    let token = 0;
    try {
      const query = url.indexOf('?');
      const pathname = query === -1 ? url : url.slice(0, query);
      const conditions = conditionsOf(this.#request.headers, this.#site.negotiates);
      let answer = this.#site.respond(pathname, true, method === 'HEAD', conditions);
      if (answer !== undefined) token = staticEngine().holdCurrent();
      else ({ answer, token } = await this.#site.respondLater(pathname, true, method === 'HEAD', conditions));
      if (!this.#isAllowed(pathname, answer)) {
        this.miss(404);
      } else if (answer.kind === 'response') {
        const stats = await this.#show(answer);
        const owned = token;
        token = 0;
        this.#send(answer, owned, stats);
      } else if (answer.kind === 'redirect') {
        this.#redirect();
      } else {
        this.miss(REFUSALS[answer.kind] ?? 404);
      }
    } catch (error) {
      this.#fail(error);
    } finally {
      if (token !== 0) staticEngine().release(token);
      release();
    }
  }

  /** Leaves it to others, or says it ourselves. */
  miss(status: number): void {
    if (this.#next !== undefined) this.#next();
    else this.#say(status, status === 405 ? { allow: 'GET, HEAD' } : {});
  }

  #isAllowed(pathname: string, answer: Answer): boolean {
    const { allowedPath } = this.#options;
    if (allowedPath === undefined || answer.kind === 'forbidden' || answer.kind === 'bad-path') return true;
    const name = decodePath(pathname);
    if (name === undefined || !allowedPath(name, this.#request)) return false;
    return (
      answer.kind !== 'response' || otherNames(name, answer, true).every((other) => allowedPath(other, this.#request))
    );
  }

  async #show({ file }: Answer): Promise<Stats | undefined> {
    const { onFile } = this.#options;
    if (onFile === undefined) return undefined;
    const stats = await stat(file);
    await onFile(file, stats);
    return stats;
  }

  #send(answer: Answer, token: number, stats: Stats | undefined): void {
    const response = this.#response;
    const { headers, status, length, file } = answer;
    if (status === 412 || status === 416) {
      this.#say(status, Object.fromEntries(pairs(headers)));
      return;
    }
    try {
      if (response.statusCode === 200) response.statusCode = status;
      for (const [name, value] of pairs(headers)) response.setHeader(name, value);
      this.#options.setHeaders?.(response, file, stats ?? statSync(file));
      if (answer.varies) response.setHeader('vary', varyWithEncoding(response.getHeader('vary')));
    } catch (error) {
      staticEngine().release(token);
      throw error;
    }
    const took = (road: Road, aborted: boolean) => this.#statistics.count(road, length, aborted);
    if (token === 0) {
      took('none', false);
      response.end();
      return;
    }
    const done = (error: ZerosendError | undefined, method: Road = 'none') => took(method, error !== undefined);
    if (isPlainResponse(response) && sendBody(response, token, length, done)) return;
    const body = new FileBody(token, length, file, { onRoad: took });
    // The client has a part of what was announced: only the end of the connection tells it so.
    body.once('error', () => response.destroy());
    response.once('close', () => body.destroy());
    body.pipe(response);
  }

  #redirect(): void {
    // Below a mount, `url` has lost the mount's path.
    const { originalUrl, url = '/' } = this.#request as IncomingMessage & { originalUrl?: string };
    this.#say(301, { location: withSlash(originalUrl ?? url) });
  }

  #fail(error: unknown): void {
    if (this.#next !== undefined) this.#next(error);
    else if (this.#response.headersSent) this.#response.destroy();
    else this.#say(500, {});
  }

  /** A short answer in plain words, which name nothing of the server. */
  #say(status: number, headers: Record<string, string>): void {
    const body = `${STATUS_CODES[status]}\n`;
    for (const name of ['content-encoding', 'content-length', 'content-type']) this.#response.removeHeader(name);
    const text = { 'content-type': 'text/plain; charset=utf-8', 'content-length': String(Buffer.byteLength(body)) };
    this.#response.writeHead(status, { ...headers, ...text }).end(body);
  }
}

function* pairs(headers: readonly string[]): Generator<[string, string]> {
  for (let at = 0; at < headers.length; at += 2) yield [headers[at] as string, headers[at + 1] as string];
}
