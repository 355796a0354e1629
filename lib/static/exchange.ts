/** Answers requests of `createStaticHandler`. */
import { type Stats, statSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';

import type { RequestConditions } from '#native';
import { abortResponse } from '../runtime/abort.js';
import { FileBody } from '../runtime/body.js';
import { keepPending, nextPending, staticEngine } from '../runtime/engine.js';
import { keepHalfOpen } from '../runtime/half-open.js';
import { lingerOnClose } from '../runtime/linger.js';
import { sendBody } from '../runtime/response.js';
import type { ResponseMethod } from '../types/method.js';
import type { ZerosendError } from '../util/errors.js';
import { conditionsOf, unconditional, varyWithEncoding } from './conditions.js';
import type { StaticHandlerOptions } from './handler-options.js';
import { otherNames } from './names.js';
import { decodePath, withSlash } from './paths.js';
import { type Answer, headersOf, type Site } from './site.js';
import type { Statistics } from './statistics.js';

/** Headers that a 304 response must not have, as in `@fastify/send`. */
const CONTENT_HEADERS = ['content-encoding', 'content-language', 'content-length', 'content-range', 'content-type'];

/** The statuses of answers without a file; others are 404. */
const REFUSALS: Partial<Record<Answer['kind'], number>> = { forbidden: 403, 'bad-path': 400, directory: 404 };

/** A request to the handler and its response. */
export class Exchange {
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
      this.delegate(405);
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

  /** As `run`, if the disk must be read or there are asynchronous callbacks. */
  async #runLater(pathname: string, headOnly: boolean): Promise<void> {
    lingerOnClose(this.#response.req?.socket);
    const release = keepHalfOpen(this.#response, 'lookups');
    let finish: () => void;
    let transfer = 0;
    try {
      const conditions = this.#conditions();
      const pending = nextPending();
      let answer = this.#site.respond(pending, pathname, true, headOnly, conditions);
      if (answer !== undefined) transfer = keepPending(pending);
      else ({ answer, transfer } = await this.#site.respondLater(pathname, true, headOnly, conditions));
      const resolved = answer;
      if (await this.#isAllowed(pathname, resolved)) {
        const stats = resolved.kind === 'response' ? await this.#callOnFile(resolved) : undefined;
        const owned = transfer;
        transfer = 0;
        finish = () => this.#finish(resolved, owned, stats);
      } else {
        finish = () => this.delegate(404);
      }
    } catch (error) {
      finish = () => this.#fail(error);
    }
    if (transfer !== 0) staticEngine().release(transfer);
    try {
      finish();
    } catch (error) {
      // An exception of the next middleware becomes an uncaught exception, as without this handler, not a rejected promise.
      queueMicrotask(() => {
        throw error;
      });
    } finally {
      release();
    }
  }

  /** Passes the request to `next`, or answers it with `status` if there is no `next`. */
  delegate(status: number): void {
    if (this.#next !== undefined) this.#next();
    else this.#respondWithText(status, status === 405 ? { allow: 'GET, HEAD' } : {});
  }

  /** Preconditions and ranges apply only to responses that would otherwise have the status 200, RFC 9110 sections 13.2.1 and 14.2. */
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

  /** Sends the answer, or delegates. Exceptions of `next` are thrown. */
  #finish(answer: Answer, transfer: number, stats: Stats | undefined): void {
    if (answer.kind !== 'response' && answer.kind !== 'redirect') {
      this.delegate(REFUSALS[answer.kind] ?? 404);
      return;
    }
    try {
      if (answer.kind === 'response') this.#send(answer, transfer, stats);
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

  /** Calls `onFile`. Returns the stats for `setHeaders`, read asynchronously because the file system may block. */
  async #callOnFile({ file }: Answer): Promise<Stats | undefined> {
    const { onFile, setHeaders } = this.#options;
    if (onFile === undefined && setHeaders === undefined) return undefined;
    const stats = await stat(file);
    await onFile?.(file, stats);
    return stats;
  }

  #send(answer: Answer, transfer: number, stats: Stats | undefined): void {
    const response = this.#response;
    const { headers, status, length, file } = answer;
    const { setHeaders } = this.#options;
    if (status === 412 || status === 416) {
      this.#respondWithText(status, headersOf(answer));
      return;
    }
    try {
      if (response.statusCode === 200) response.statusCode = status;
      if (status === 304) for (const name of CONTENT_HEADERS) response.removeHeader(name);
      for (let at = 0; at < headers.length; at += 2) {
        const [name, value] = [headers[at] as string, headers[at + 1] as string];
        if (describesBytes(name, value, answer) || !response.hasHeader(name)) response.setHeader(name, value);
      }
      if (setHeaders !== undefined) {
        // The callback may cause another request to the engine.
        transfer = keepPending(transfer);
        setHeaders(response, file, stats ?? statSync(file));
      }
      if (answer.varies) response.setHeader('vary', varyWithEncoding(response.getHeader('vary')));
    } catch (error) {
      staticEngine().release(transfer);
      throw error;
    }
    const record = (method: ResponseMethod, aborted: boolean) => this.#statistics.count(method, length, aborted);
    if (length === 0) {
      record('none', false);
      response.end();
      return;
    }
    const done = (error: ZerosendError | undefined, method: ResponseMethod = 'none') =>
      record(method, error !== undefined);
    if (sendBody(response, transfer, length, done)) return;
    const body = new FileBody(keepPending(transfer), length, file, { onSent: record });
    // If a part was sent, the body has aborted the response already.
    body.once('error', () => response.destroy());
    response.once('close', () => body.destroy());
    body.pipe(response);
  }

  #redirect(): void {
    // Express and Connect remove the path of the mount from `url`.
    const { originalUrl, url = '/' } = this.#request as IncomingMessage & { originalUrl?: string };
    this.#respondWithText(301, { location: withSlash(originalUrl ?? url) });
  }

  #fail(error: unknown): void {
    if (this.#next !== undefined) this.#next(error);
    else if (this.#response.headersSent) abortResponse(this.#response);
    else this.#respondWithText(500, {});
  }

  /** Responds with the text of the status. */
  #respondWithText(status: number, headers: Record<string, string>): void {
    const body = `${STATUS_CODES[status]}\n`;
    for (const name of ['content-encoding', 'content-length', 'content-type']) this.#response.removeHeader(name);
    const fields = { 'content-type': 'text/plain; charset=utf-8', 'content-length': String(Buffer.byteLength(body)) };
    this.#response.writeHead(status, { ...headers, ...fields }).end(body);
  }
}

/** Whether a header describes the bytes that are sent, so that a value that was set before must be replaced. */
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
