/** Answers requests for files with Fastify replies: resolves the file, calls the callbacks, and chooses the kind of reply. */
import type { Stats } from 'node:fs';
import { stat } from 'node:fs/promises';

import type { FastifyReply } from 'fastify';
import type { RequestConditions } from '#native';

import { keepPending, nextPending, staticEngine } from '../runtime/engine.js';
import { keepHalfOpen } from '../runtime/half-open.js';
import { lingerOnClose } from '../runtime/linger.js';
import type { ZerosendError } from '../util/errors.js';
import { FST_STATIC_FORBIDDEN_PATH } from './errors.js';
import { type FileRequest, requestConditions } from './file-request.js';
import { httpError } from './http-error.js';
import type { ListOptionsJsonFormat } from './list.js';
import { sendListing } from './list-reply.js';
import { otherNames } from './names.js';
import type { FastifyStaticOptions } from './options.js';
import { decodePath, withSlash } from './paths.js';
import { ReplySender } from './reply-sender.js';
import { type Answer, headersOf, type Site } from './site.js';
import type { Statistics } from './statistics.js';

/** Replies for one registration of the plugin. */
export class Delivery {
  readonly #options: FastifyStaticOptions;
  readonly #prefix: string;
  readonly #sender: ReplySender;
  /** The registration has callbacks that run before the response is sent. */
  readonly #hasCallbacks: boolean;
  readonly #list: ListOptionsJsonFormat | undefined;

  constructor(options: FastifyStaticOptions, prefix: string, statistics: Statistics) {
    this.#options = options;
    this.#prefix = prefix;
    this.#sender = new ReplySender(options.setHeaders, statistics);
    this.#hasCallbacks = options.allowedPath !== undefined || options.onFile !== undefined;
    // True means a list with default options.
    this.#list = options.list ? (Object(options.list) as ListOptionsJsonFormat) : undefined;
  }

  /** Replies to a request for a file: synchronously if the file is cached or its metadata can be read without blocking. */
  answer(reply: FastifyReply, site: Site, request: FileRequest): void {
    if (this.#hasCallbacks || request.options?.onFile !== undefined) {
      void this.#answerWithCallbacks(reply, site, request).catch((error) => reply.send(error));
      return;
    }
    const conditions = requestConditions(reply, site, request);
    const headOnly = reply.request.method === 'HEAD';
    const pending = nextPending();
    let answer: Answer | undefined;
    try {
      answer = site.respond(pending, request.pathname, request.encoded, headOnly, conditions);
    } catch (error) {
      this.#fail(reply, error as ZerosendError);
      return;
    }
    if (answer === undefined) {
      void this.#answerLater(reply, site, request, headOnly, conditions);
      return;
    }
    try {
      this.#deliver(reply, site, request, answer, pending, undefined);
    } catch (error) {
      staticEngine().release(pending);
      throw error;
    }
  }

  async #answerLater(
    reply: FastifyReply,
    site: Site,
    request: FileRequest,
    headOnly: boolean,
    conditions: RequestConditions | undefined,
  ): Promise<void> {
    lingerOnClose(reply.raw.req?.socket);
    const release = keepHalfOpen(reply.raw, 'lookups');
    try {
      const { answer, transfer } = await site.respondLater(request.pathname, request.encoded, headOnly, conditions);
      try {
        this.#deliver(reply, site, request, answer, transfer, await this.#readStats(answer, transfer));
      } catch (error) {
        reply.send(error);
      }
    } catch (error) {
      this.#fail(reply, error as ZerosendError);
    } finally {
      release();
    }
  }

  /** The stats for `setHeaders`. Asynchronous: the lookup has shown that the file system may block. */
  async #readStats(answer: Answer, transfer: number): Promise<Stats | undefined> {
    if (this.#options.setHeaders === undefined || answer.kind !== 'response') return undefined;
    try {
      return await stat(answer.file);
    } catch (error) {
      staticEngine().release(transfer);
      throw error;
    }
  }

  /** Calls `allowedPath` and `onFile` before the response is sent. */
  async #answerWithCallbacks(reply: FastifyReply, site: Site, request: FileRequest): Promise<void> {
    const { allowedPath, setHeaders } = this.#options;
    const { options, unrooted } = request;
    const onFile = options !== undefined && 'onFile' in options ? options.onFile : this.#options.onFile;
    if (onFile !== undefined && typeof onFile !== 'function') throw new TypeError('onFile option must be a function');
    const name = request.encoded ? decodePath(request.pathname) : request.pathname;
    if (name === undefined) {
      reply.callNotFound();
      return;
    }
    const parts = allowedPath !== undefined && site.roots.length > 1 ? site.parts() : [site];
    lingerOnClose(reply.raw.req?.socket);
    const release = keepHalfOpen(reply.raw, 'lookups');
    const releaseSite = site.use();
    let owned = 0;
    try {
      for (const part of parts) {
        const { answer, transfer } = await this.#resolve(reply, part, request);
        owned = transfer;
        const { kind, reason } = answer;
        const isInvalid = kind === 'bad-path' || (kind === 'forbidden' && reason !== 'dot file');
        if (!isInvalid && allowedPath !== undefined) {
          const roots = part.roots.length > 1 ? part.roots : [part.roots[0] as string];
          const root = unrooted ? undefined : (request.root ?? roots[answer.rootIndex]);
          // For the fallback, `name` was passed to the callback for each root before.
          const names = part.roots.length > 1 ? [] : [name];
          if (kind === 'response') names.push(...otherNames(name, answer, name.startsWith('/')));
          for (const checked of names) {
            if (await allowedPath(checked, root, reply.request)) continue;
            reply.callNotFound();
            return;
          }
        }
        if ((kind === 'not-found' || kind === 'directory') && part !== parts.at(-1)) continue;
        let stats: Stats | undefined;
        if (kind === 'response' && (onFile !== undefined || setHeaders !== undefined)) {
          stats = await stat(answer.file);
          await onFile?.(answer.file, stats);
        }
        owned = 0;
        this.#deliver(reply, part, request, answer, transfer, stats);
        return;
      }
    } catch (error) {
      if ((error as ZerosendError).syscall !== undefined) this.#fail(reply, error as ZerosendError);
      else throw error;
    } finally {
      if (owned !== 0) staticEngine().release(owned);
      releaseSite();
      release();
    }
  }

  /** The answer of a site and the handle of its transfer. */
  async #resolve(reply: FastifyReply, site: Site, request: FileRequest): Promise<{ answer: Answer; transfer: number }> {
    const { pathname, encoded } = request;
    const conditions = requestConditions(reply, site, request);
    const headOnly = reply.request.method === 'HEAD';
    const pending = nextPending();
    const answer = site.respond(pending, pathname, encoded, headOnly, conditions);
    if (answer !== undefined) return { answer, transfer: keepPending(pending) };
    return await site.respondLater(pathname, encoded, headOnly, conditions);
  }

  #deliver(
    reply: FastifyReply,
    site: Site,
    request: FileRequest,
    answer: Answer,
    transfer: number,
    stats: Stats | undefined,
  ): void {
    switch (answer.kind) {
      case 'response':
        if (answer.status === 412 || answer.status === 416) reply.send(httpError(answer.status, headersOf(answer)));
        else this.#sender.send(reply, answer, transfer, stats, request.options?.highWaterMark);
        return;
      case 'redirect':
        reply.redirect(withSlash(reply.request.raw.url as string), 301);
        return;
      case 'forbidden':
        reply.send(hasNoErrorCode(answer, request) ? httpError(403) : new FST_STATIC_FORBIDDEN_PATH());
        return;
      case 'bad-path':
        reply.send(httpError(400));
        return;
      default:
        if (this.#list === undefined) {
          this.#notFound(reply, answer);
        } else {
          const releaseSite = site.use();
          void sendListing(reply, site, request, answer, this.#prefix, this.#list)
            .then((sent) => sent || this.#notFound(reply, answer))
            .catch((error) => reply.send(error))
            .finally(releaseSite);
        }
    }
  }

  #notFound(reply: FastifyReply, answer: Answer): void {
    if (answer.kind === 'directory' && answer.status === 403) reply.send(httpError(403));
    else reply.callNotFound();
  }

  #fail(reply: FastifyReply, error: ZerosendError): void {
    reply.log.error({ err: error }, 'the file could not be read');
    // The message of the error contains the path of the file: clients get the status only.
    reply.send(httpError(500, undefined, error));
  }
}

/** Whether `@fastify/static` leaves the error to `@fastify/send`, whose errors have no code. */
function hasNoErrorCode(answer: Answer, { pathname, encoded }: FileRequest): boolean {
  return answer.reason === 'dot file' || (!encoded && /^\.\.(?:\/|$)/.test(pathname));
}
