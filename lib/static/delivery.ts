/**
 * From an answer of the engine to a Fastify reply: callbacks of the application, headers, errors, and the method of the bytes.
 *
 * A plain GET without callbacks costs two calls of the engine: the answer, and head and file to the socket.
 */
import { type Stats, statSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import path from 'node:path';

import type { FastifyReply, FastifyRequest } from 'fastify';
import type { RequestConditions } from '#native';
import { directHeaders } from '../node/fastify-internals.js';
import { isPlainResponse } from '../node/node-internals.js';
import { FileBody } from '../runtime/body.js';
import { keepPending, nextPending, staticEngine } from '../runtime/engine.js';
import { keepHalfOpen } from '../runtime/half-open.js';
import { lingerOnClose } from '../runtime/linger.js';
import { IS_LINUX } from '../runtime/platform.js';
import { sendBody } from '../runtime/response.js';
import type { ResponseMethod } from '../types/method.js';
import type { ZerosendError } from '../util/errors.js';
import { conditionsOf, unconditional, varyWithEncoding } from './conditions.js';
import { openDirectory } from './directory.js';
import { FST_STATIC_FORBIDDEN_PATH, FST_STATIC_INVALID_OPTION_VALUE } from './errors.js';
import { httpError } from './http-error.js';
import { asJson, isListName, type Listing, type ListOptionsJsonFormat, listDirectory, withLinks } from './list.js';
import { otherNames } from './names.js';
import type { FastifyStaticOptions, ReplyOptions } from './options.js';
import type { Overrides } from './overrides.js';
import { decodePath, withSlash } from './paths.js';
import { type Answer, headersOf, type Site } from './site.js';
import type { Statistics } from './statistics.js';

/** A name that is asked for. */
export interface Wanted {
  /** The path below the root. */
  pathname: string;
  /** It comes from a URL: percent-encoded, without query. */
  encoded: boolean;
  /** The root as `allowedPath` is told; default: that of the site that has the file. */
  root?: string | undefined;
  /** Without a root: `pathname` is absolute in the file system. */
  unrooted?: boolean;
  options?: ReplyOptions | undefined;
  /** What the response has in place of the options of its site. */
  overrides?: Overrides | undefined;
}

/** Answers replies for one registration. */
export class Delivery {
  readonly #options: FastifyStaticOptions;
  readonly #statistics: Statistics;
  readonly #prefix: string;
  /** Every response has to be shown to the application before it is sent. */
  readonly #watched: boolean;
  readonly #list: ListOptionsJsonFormat | undefined;

  constructor(options: FastifyStaticOptions, prefix: string, statistics: Statistics) {
    this.#options = options;
    this.#prefix = prefix;
    this.#statistics = statistics;
    this.#watched = options.allowedPath !== undefined || options.onFile !== undefined;
    // True is a list with the defaults.
    this.#list = options.list ? (Object(options.list) as ListOptionsJsonFormat) : undefined;
  }

  answer(reply: FastifyReply, site: Site, wanted: Wanted): void {
    if (this.#watched || wanted.options?.onFile !== undefined) {
      void this.#show(reply, site, wanted).catch((error) => reply.send(error));
      return;
    }
    const { request } = reply;
    const conditions = conditionsFor(reply, site, wanted);
    const headOnly = request.method === 'HEAD';
    const pending = nextPending();
    let answer: Answer | undefined;
    try {
      answer = site.respond(pending, wanted.pathname, wanted.encoded, headOnly, conditions);
    } catch (error) {
      this.#fail(reply, error as ZerosendError);
      return;
    }
    if (answer === undefined) {
      void this.#answerLater(reply, site, wanted, headOnly, conditions);
      return;
    }
    try {
      this.#deliver(reply, site, wanted, answer, pending, undefined);
    } catch (error) {
      staticEngine().release(pending);
      throw error;
    }
  }

  async #answerLater(
    reply: FastifyReply,
    site: Site,
    wanted: Wanted,
    headOnly: boolean,
    conditions: RequestConditions | undefined,
  ): Promise<void> {
    lingerOnClose(reply.raw.req?.socket);
    const release = keepHalfOpen(reply.raw, 'lookups');
    try {
      const { answer, token } = await site.respondLater(wanted.pathname, wanted.encoded, headOnly, conditions);
      try {
        this.#deliver(reply, site, wanted, answer, token, await this.#stat(answer, token));
      } catch (error) {
        reply.send(error);
      }
    } catch (error) {
      this.#fail(reply, error as ZerosendError);
    } finally {
      release();
    }
  }

  /**
   * What `setHeaders` gets besides the path. The engine was asked on another thread, so the file system may be slow: it must
   * not be asked on this one.
   */
  async #stat(answer: Answer, token: number): Promise<Stats | undefined> {
    if (this.#options.setHeaders === undefined || answer.kind !== 'response') return undefined;
    try {
      return await stat(answer.file);
    } catch (error) {
      staticEngine().release(token);
      throw error;
    }
  }

  /** Lets `allowedPath` and `onFile` see the answer first. */
  async #show(reply: FastifyReply, site: Site, wanted: Wanted): Promise<void> {
    const { allowedPath } = this.#options;
    const { request } = reply;
    const onFile =
      wanted.options !== undefined && 'onFile' in wanted.options ? wanted.options.onFile : this.#options.onFile;
    if (onFile !== undefined && typeof onFile !== 'function') throw new TypeError('onFile option must be a function');
    const name = wanted.encoded ? decodePath(wanted.pathname) : wanted.pathname;
    if (name === undefined) {
      reply.callNotFound();
      return;
    }
    const parts = allowedPath !== undefined && site.roots.length > 1 ? site.parts() : [site];
    lingerOnClose(reply.raw.req?.socket);
    const release = keepHalfOpen(reply.raw, 'lookups');
    const leaveSite = site.use();
    let held = 0;
    try {
      for (const part of parts) {
        const { answer, token } = await this.#ask(reply, part, wanted);
        held = token;
        const { kind, reason } = answer;
        const misspelt = kind === 'bad-path' || (kind === 'forbidden' && reason !== 'dot file');
        if (!misspelt && allowedPath !== undefined) {
          const roots = part.roots.length > 1 ? part.roots : [part.roots[0] as string];
          const root = wanted.unrooted ? undefined : (wanted.root ?? roots[answer.rootIndex]);
          // What falls back has been asked for in every root before.
          const names = part.roots.length > 1 ? [] : [name];
          if (kind === 'response') names.push(...otherNames(name, answer, name.startsWith('/')));
          for (const asked of names) {
            if (await allowedPath(asked, root, request)) continue;
            reply.callNotFound();
            return;
          }
        }
        if (kind === 'not-found' && part !== parts.at(-1)) continue;
        if (kind === 'directory' && part !== parts.at(-1)) continue;
        let stats: Stats | undefined;
        if (kind === 'response' && (onFile !== undefined || this.#options.setHeaders !== undefined)) {
          stats = await stat(answer.file);
          await onFile?.(answer.file, stats);
        }
        held = 0;
        this.#deliver(reply, part, wanted, answer, token, stats);
        return;
      }
    } catch (error) {
      if ((error as ZerosendError).syscall !== undefined) this.#fail(reply, error as ZerosendError);
      else throw error;
    } finally {
      if (held !== 0) staticEngine().release(held);
      leaveSite();
      release();
    }
  }

  /** The answer and the token of its transfer, at once where the disk need not be asked. */
  async #ask(reply: FastifyReply, site: Site, wanted: Wanted): Promise<{ answer: Answer; token: number }> {
    const { pathname, encoded } = wanted;
    const conditions = conditionsFor(reply, site, wanted);
    const headOnly = reply.request.method === 'HEAD';
    const pending = nextPending();
    const answer = site.respond(pending, pathname, encoded, headOnly, conditions);
    if (answer !== undefined) return { answer, token: keepPending(pending) };
    return await site.respondLater(pathname, encoded, headOnly, conditions);
  }

  #deliver(
    reply: FastifyReply,
    site: Site,
    wanted: Wanted,
    answer: Answer,
    token: number,
    stats: Stats | undefined,
  ): void {
    switch (answer.kind) {
      case 'response':
        if (answer.status === 412 || answer.status === 416) reply.send(httpError(answer.status, headersOf(answer)));
        else this.#send(reply, wanted, answer, token, stats);
        return;
      case 'redirect':
        reply.redirect(withSlash(reply.request.raw.url as string), 301);
        return;
      case 'forbidden':
        reply.send(isPlainRefusal(answer, wanted) ? httpError(403) : new FST_STATIC_FORBIDDEN_PATH());
        return;
      case 'bad-path':
        reply.send(httpError(400));
        return;
      default:
        if (this.#list === undefined) {
          this.#missing(reply, answer);
        } else {
          const leaveSite = site.use();
          void this.#sendList(reply, site, wanted, answer)
            .catch((error) => reply.send(error))
            .finally(leaveSite);
        }
    }
  }

  #missing(reply: FastifyReply, answer: Answer): void {
    if (answer.kind === 'directory' && answer.status === 403) reply.send(httpError(403));
    else reply.callNotFound();
  }

  #send(reply: FastifyReply, wanted: Wanted, answer: Answer, token: number, stats: Stats | undefined): void {
    const { setHeaders } = this.#options;
    if (reply.statusCode === 200 && answer.status !== 200) reply.code(answer.status);
    const list = answer.headers;
    let headers = directHeaders(reply);
    if (headers === undefined) {
      for (let at = 0; at < list.length; at += 2) reply.header(list[at] as string, list[at + 1]);
    } else {
      for (let at = 0; at < list.length; at += 2) headers[list[at] as string] = list[at + 1];
    }
    if (setHeaders !== undefined) {
      // The application may cause another request to the engine.
      token = keepPending(token);
      try {
        setHeaders(reply, answer.file, stats ?? statSync(answer.file));
      } catch (error) {
        staticEngine().release(token);
        throw error;
      }
      // These two are about the bytes that are sent, whatever was set.
      if (answer.encoding !== undefined) {
        for (let at = 0; at < list.length; at += 2) {
          const name = list[at] as string;
          if (name === 'content-type' || name === 'content-encoding') reply.header(name, list[at + 1]);
        }
      }
      // Asked again: it may have added a trailer.
      if (headers !== undefined) headers = directHeaders(reply);
    }
    if (answer.varies) reply.header('vary', varyWithEncoding(reply.getHeader('vary')));
    // Nothing to send needs no engine that sends.
    if (headers !== undefined && (IS_LINUX || answer.length === 0) && isPlainResponse(reply.raw)) {
      this.#sendDirectly(reply, answer, headers as Record<string, string>, token);
    } else {
      token = keepPending(token);
      reply.send(this.#body(reply, answer, token, wanted.options?.highWaterMark));
    }
  }

  /** Nothing stands between: head and body by one native call. */
  #sendDirectly(reply: FastifyReply, answer: Answer, headers: Record<string, string>, token: number): void {
    const { raw } = reply;
    try {
      raw.writeHead(raw.statusCode, headers);
    } catch (error) {
      staticEngine().release(token);
      throw error;
    }
    if (answer.length === 0) {
      this.#took(reply, answer, 'none', false);
      raw.end();
      return;
    }
    const sent = sendBody(raw, token, answer.length, (error, method) => {
      this.#took(reply, answer, method ?? 'none', error !== undefined);
      if (error !== undefined) logFailure(reply.log, error, answer.file);
    });
    // The head says something that a bare body cannot follow (somebody has changed the length, say).
    if (!sent) {
      token = keepPending(token);
      const body = this.#body(reply, answer, token, undefined);
      // Where nothing was sent yet; else the body has ended it.
      body.once('error', (error) => {
        logFailure(reply.log, error as ZerosendError, answer.file);
        raw.destroy();
      });
      raw.once('close', () => body.destroy());
      body.pipe(raw);
    }
  }

  #body(reply: FastifyReply, answer: Answer, token: number, highWaterMark: number | undefined): FileBody {
    reply.zerosendMethod = token === 0 ? 'none' : 'stream';
    const onSent = (method: ResponseMethod, aborted: boolean) => this.#took(reply, answer, method, aborted);
    // As @fastify/send: what is no positive integer is the default.
    const usable = Number.isSafeInteger(highWaterMark) && (highWaterMark as number) > 0;
    const body = new FileBody(token, answer.length, answer.file, {
      highWaterMark: usable ? highWaterMark : undefined,
      onSent,
    });
    // Hooks may take their time before it is piped.
    lingerOnClose(reply.raw.req?.socket);
    body.once('close', keepHalfOpen(reply.raw, 'lookups'));
    return body;
  }

  #took(reply: FastifyReply, answer: Answer, method: ResponseMethod, aborted: boolean): void {
    reply.zerosendMethod = method;
    this.#statistics.count(method, answer.length, aborted);
  }

  /** The list of a directory, if this path is to have one. */
  async #sendList(reply: FastifyReply, site: Site, wanted: Wanted, answer: Answer): Promise<void> {
    const list = this.#list as ListOptionsJsonFormat;
    const pathname = wanted.encoded ? (decodePath(wanted.pathname) ?? '/') : wanted.pathname;
    const slash = pathname.endsWith('/');
    // A directory without its slash, or without any index that could be there, is always listed.
    const asItself = answer.kind === 'directory' && (!slash || answer.status === 403);
    if (!asItself && !isListName(pathname, list)) {
      this.#missing(reply, answer);
      return;
    }
    let directory = answer.path;
    if (answer.kind !== 'directory') {
      const found = await this.#directory(site, slash ? pathname : path.posix.join(path.posix.dirname(pathname), '/'));
      if (found === undefined) {
        reply.callNotFound();
        return;
      }
      directory = found;
    }
    const asked = (reply.request.query as { format?: unknown } | undefined)?.format;
    if (asked === 'html' && typeof list.render !== 'function') {
      const allowed = 'must be a function and is required with the URL parameter `format=html`';
      throw new FST_STATIC_INVALID_OPTION_VALUE('list.render', allowed);
    }
    const listing = await listAt(site, directory, list).catch(() => undefined);
    if (listing === undefined) {
      reply.callNotFound();
    } else if ((asked || list.format) === 'html' && list.render !== undefined) {
      const { dirs, files } = withLinks(listing, pathname, this.#prefix, list);
      reply.type('text/html').send(list.render(dirs, files));
    } else {
      reply.send(asJson(listing, list));
    }
  }

  /** The directory, below its root, that a path with its slash names, whatever index it has; found by the engine, so under its rules. */
  async #directory(site: Site, pathname: string): Promise<string | undefined> {
    const { answer, token } = await site.respondLater(pathname, false, true, undefined);
    if (token !== 0) staticEngine().release(token);
    if (answer.kind === 'directory') return answer.path;
    return answer.kind === 'response' ? pathname.replace(/^\/+|\/+$/g, '') : undefined;
  }

  #fail(reply: FastifyReply, error: ZerosendError): void {
    reply.log.error({ err: error }, 'the file could not be read');
    // The message of the system names a path of the server, which is nobody's business.
    reply.send(httpError(500, undefined, error));
  }
}

/** What is in the directory at `relative`; lists are of a single root. */
async function listAt(site: Site, relative: string, options: ListOptionsJsonFormat): Promise<Listing> {
  const directory = await openDirectory(site, 0, relative);
  try {
    return await listDirectory(directory, options);
  } finally {
    await directory.close();
  }
}

/**
 * What decides about a request. `@fastify/static` heeds preconditions and ranges whatever status was set before; of those,
 * an error's page is sent whole (RFC 9110 sections 13.2.1 and 14.2).
 */
function conditionsFor(reply: FastifyReply, site: Site, { overrides }: Wanted): RequestConditions | undefined {
  const { statusCode } = reply;
  const last = site.options.conformance === 'rfc9110' ? 200 : 299;
  const decide = statusCode >= 200 && statusCode <= last ? conditionsOf : unconditional;
  return decide(reply.request.headers, site.negotiates, overrides);
}

/** What `@fastify/static` leaves to send, which has no code for it. */
function isPlainRefusal(answer: Answer, { pathname, encoded }: Wanted): boolean {
  return answer.reason === 'dot file' || (!encoded && /^\.\.(?:\/|$)/.test(pathname));
}

function logFailure(log: FastifyRequest['log'], error: ZerosendError, file: string): void {
  const peerIsGone = error.code === 'EPIPE' || error.code === 'ECONNRESET' || error.code === 'ERR_ZEROSEND_CLOSED';
  if (peerIsGone) log.info({ err: error }, 'the client closed the connection');
  else log.error({ err: error, file }, 'the connection was closed in the middle of a response');
}
