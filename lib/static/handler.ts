/** `createStaticHandler`: static files for `node:http`, Express and Connect. */
import { type Stats, statSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import path from 'node:path';
import type { RequestConditions } from '#native';
import { cacheOption } from '../cache/cache-option.js';
import { abortResponse } from '../runtime/abort.js';
import { FileBody } from '../runtime/body.js';
import { keepPending, nextPending, staticEngine } from '../runtime/engine.js';
import { keepHalfOpen } from '../runtime/half-open.js';
import { lingerOnClose } from '../runtime/linger.js';
import { sendBody } from '../runtime/response.js';
import type { ResponseMethod } from '../types/method.js';
import { invalid, type ZerosendError } from '../util/errors.js';
import { conditionsOf, unconditional, varyWithEncoding } from './conditions.js';
import { otherNames } from './names.js';
import { rootPath } from './options.js';
import { decodePath, withSlash } from './paths.js';
import { type Answer, headersOf, Site } from './site.js';
import { DEFAULT_CACHE, type SiteOptions } from './site-options.js';
import { type StaticStatistics, Statistics } from './statistics.js';

export interface StaticHandlerOptions extends SiteOptions {
  /**
   * False makes it a miss; a promise is awaited. Asked for the path of the request (decoded, below the mount), and again for
   * that of the file when it is another (an index, an extension, a fallback). Default: all are allowed.
   */
  allowedPath?: ((path: string, request: IncomingMessage) => boolean | Promise<boolean>) | undefined;
  /**
   * Has the last word on the headers, for every response that has a file: 200, 206, 304. What was set on the response before
   * stays, but for the length, range and coding of what is sent; preconditions are compared with an `ETag` or
   * `Last-Modified` that was set, and are heeded, as ranges are, where the status is 200.
   */
  setHeaders?: ((response: ServerResponse, path: string, stat: Stats) => void) | undefined;
  /** Called with the file before it is sent, and awaited; what it throws goes to `next`, or is a 500. */
  onFile?: ((path: string, stat: Stats) => void | Promise<void>) | undefined;
}

/** A listener for `http.createServer`, or middleware for Express and Connect. */
export interface StaticHandler {
  /**
   * Answers GET and HEAD of files. With `next`, everything that is no file is left to it: other methods, names that are
   * missing or refused; it is called with an error when the disk fails. It is called once, and what it throws is thrown to
   * the caller, or is an uncaught exception where the disk was asked first. Without, they are 404, 403, 405 and 500.
   */
  (request: IncomingMessage, response: ServerResponse, next?: (error?: unknown) => void): void;
  /** Counts since it was made, as a copy. */
  stats(): StaticStatistics;
  /** Lets go of what it holds. Responses under way still end; later requests are misses. */
  close(): void;
}

/** What describes the content that a 304 does not have, as `send` removes it. */
const CONTENT_FIELDS = ['content-encoding', 'content-language', 'content-length', 'content-range', 'content-type'];

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
    else exchange.run();
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

  run(): void {
    const { method, url = '/' } = this.#request;
    if (method !== 'GET' && method !== 'HEAD') {
      this.miss(405);
      return;
    }
    const query = url.indexOf('?');
    const pathname = query === -1 ? url : url.slice(0, query);
    const { allowedPath, onFile } = this.#options;
    if (allowedPath === undefined && onFile === undefined) {
      const pending = nextPending();
      let answer: Answer | undefined;
      try {
        answer = this.#site.respond(pending, pathname, true, method === 'HEAD', this.#conditions());
      } catch (error) {
        this.#fail(error);
        return;
      }
      if (answer !== undefined) {
        this.#finish(answer, pending, undefined);
        return;
      }
    }
    void this.#runLater(pathname, method === 'HEAD');
  }

  /** As `run`, where a disk or a callback takes its time. */
  async #runLater(pathname: string, headOnly: boolean): Promise<void> {
    // A client that half-closes meanwhile still wants its answer.
    lingerOnClose(this.#response.req?.socket);
    const release = keepHalfOpen(this.#response, 'lookups');
    let finish: () => void;
    let token = 0;
    try {
      const conditions = this.#conditions();
      const pending = nextPending();
      let answer = this.#site.respond(pending, pathname, true, headOnly, conditions);
      if (answer !== undefined) token = keepPending(pending);
      else ({ answer, token } = await this.#site.respondLater(pathname, true, headOnly, conditions));
      const found = answer;
      if (await this.#isAllowed(pathname, found)) {
        const stats = found.kind === 'response' ? await this.#show(found) : undefined;
        const owned = token;
        token = 0;
        finish = () => this.#finish(found, owned, stats);
      } else {
        finish = () => this.miss(404);
      }
    } catch (error) {
      finish = () => this.#fail(error);
    }
    if (token !== 0) staticEngine().release(token);
    try {
      finish();
    } catch (error) {
      // What a middleware behind this one throws is an uncaught exception, as without this handler, and not a rejection.
      queueMicrotask(() => {
        throw error;
      });
    } finally {
      release();
    }
  }

  /** Leaves it to others, or says it ourselves. */
  miss(status: number): void {
    if (this.#next !== undefined) this.#next();
    else this.#say(status, status === 405 ? { allow: 'GET, HEAD' } : {});
  }

  /** RFC 9110 sections 13.2.1 and 14.2: preconditions and ranges are about a response that would be 200. */
  #conditions(): RequestConditions | undefined {
    const { headers } = this.#request;
    const { negotiates } = this.#site;
    if (this.#response.statusCode !== 200) return unconditional(headers, negotiates);
    const conditions = conditionsOf(headers, negotiates);
    if (conditions === undefined) return undefined;
    const etag = this.#response.getHeader('etag');
    const lastModified = this.#response.getHeader('last-modified');
    if (etag !== undefined) conditions.etag = String(etag);
    if (lastModified !== undefined) conditions.lastModified = String(lastModified);
    return conditions;
  }

  /** Answers, or leaves it to others; whatever `next` throws is the caller's. */
  #finish(answer: Answer, token: number, stats: Stats | undefined): void {
    if (answer.kind !== 'response' && answer.kind !== 'redirect') {
      this.miss(REFUSALS[answer.kind] ?? 404);
      return;
    }
    try {
      if (answer.kind === 'response') this.#send(answer, token, stats);
      else this.#redirect();
    } catch (error) {
      this.#fail(error);
    }
  }

  async #isAllowed(pathname: string, answer: Answer): Promise<boolean> {
    const { allowedPath } = this.#options;
    if (allowedPath === undefined || answer.kind === 'forbidden' || answer.kind === 'bad-path') return true;
    const name = decodePath(pathname);
    if (name === undefined || !(await allowedPath(name, this.#request))) return false;
    if (answer.kind !== 'response') return true;
    for (const other of otherNames(name, answer, true)) {
      if (!(await allowedPath(other, this.#request))) return false;
    }
    return true;
  }

  /** What `setHeaders` gets too: the file system may be slow, and must not be asked on this thread. */
  async #show({ file }: Answer): Promise<Stats | undefined> {
    const { onFile, setHeaders } = this.#options;
    if (onFile === undefined && setHeaders === undefined) return undefined;
    const stats = await stat(file);
    await onFile?.(file, stats);
    return stats;
  }

  #send(answer: Answer, token: number, stats: Stats | undefined): void {
    const response = this.#response;
    const { headers, status, length, file } = answer;
    const { setHeaders } = this.#options;
    if (status === 412 || status === 416) {
      this.#say(status, headersOf(answer));
      return;
    }
    try {
      if (response.statusCode === 200) response.statusCode = status;
      if (status === 304) for (const name of CONTENT_FIELDS) response.removeHeader(name);
      for (let at = 0; at < headers.length; at += 2) {
        const [name, value] = [headers[at] as string, headers[at + 1] as string];
        if (describesBytes(name, value, answer) || !response.hasHeader(name)) response.setHeader(name, value);
      }
      if (setHeaders !== undefined) {
        // The application may cause another request to the engine.
        token = keepPending(token);
        setHeaders(response, file, stats ?? statSync(file));
      }
      if (answer.varies) response.setHeader('vary', varyWithEncoding(response.getHeader('vary')));
    } catch (error) {
      staticEngine().release(token);
      throw error;
    }
    const took = (method: ResponseMethod, aborted: boolean) => this.#statistics.count(method, length, aborted);
    if (length === 0) {
      took('none', false);
      response.end();
      return;
    }
    const done = (error: ZerosendError | undefined, method: ResponseMethod = 'none') =>
      took(method, error !== undefined);
    if (sendBody(response, token, length, done)) return;
    const body = new FileBody(keepPending(token), length, file, { onSent: took });
    // Where nothing was sent yet; else the body has ended it.
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
    else if (this.#response.headersSent) abortResponse(this.#response);
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

/** Whether a field is about the very bytes that are sent, so that one that was set before cannot be meant. */
function describesBytes(name: string, value: string, { encoding }: Answer): boolean {
  switch (name) {
    case 'content-length':
    case 'content-range':
      return true;
    case 'content-encoding':
      return encoding !== undefined;
    case 'content-type':
      return value.startsWith('multipart/byteranges');
    default:
      return false;
  }
}
