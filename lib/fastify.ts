/**
 * `zerosend/fastify`: static files for Fastify, a drop-in for `@fastify/static`.
 *
 * This file speaks Fastify; which file answers and with which headers is decided in the engine (see site.ts), and how the
 * bytes leave in response.ts.
 */
import { type Stats, statSync } from 'node:fs';
import { Socket } from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import createError from '@fastify/error';
import type {
  FastifyInstance,
  FastifyPluginAsync,
  FastifyReply,
  FastifyRequest,
  RegisterOptions,
  RouteOptions,
} from 'fastify';
import fastifyPlugin from 'fastify-plugin';

import { FileBody } from './body.js';
import { engine } from './engine.js';
import type { ZerosendError } from './errors.js';
import { unobstructedHeaders } from './fastify-internals.js';
import { hold } from './hold.js';
import { isPlainResponse, isPlainSocket } from './internals.js';
import type { RequestConditions } from './native.js';
import { CURRENT, sendBody } from './response.js';
import { type Answer, conditionsOf, Site, type SiteOptions } from './site.js';

/** Options of one response. */
export interface SendOptions extends SiteOptions {}

/** Options of the plugin: those of `@fastify/static`, and `method`. */
export interface FastifyStaticOptions extends SendOptions, Omit<RegisterOptions, 'prefix' | 'logLevel'> {
  /** The directory to serve: an absolute path or a `file:` URL; of several, the first that has the file. */
  root?: string | URL | (string | URL)[];
  /** False: only the decorators. Default true. */
  serve?: boolean;
  /** Where the files appear. Default `'/'`. */
  prefix?: string;
  /** Do not add a slash to the prefix. Default false. */
  prefixAvoidTrailingSlash?: boolean;
  /** Add `reply.sendFile`. False for a second registration. Default true. */
  decorateReply?: boolean;
  /** Hide the routes from schema based documentation. Default true. */
  schemaHide?: boolean;
  /** Called last, after all headers are set, with the file's absolute path. */
  setHeaders?: (reply: FastifyReply, path: string, stat: Stats) => void;
  /** No warning about a root that does not exist. Default false. */
  suppressWarning?: boolean;
  constraints?: RouteOptions['constraints'];
  logLevel?: NonNullable<RouteOptions['logLevel']>;
}

declare module 'fastify' {
  interface FastifyReply {
    /** Sends a file below the root, or below `rootPath`. */
    sendFile(filename: string, rootPath?: string): FastifyReply;
    sendFile(filename: string, options?: SendOptions): FastifyReply;
    sendFile(filename: string, rootPath?: string, options?: SendOptions): FastifyReply;
  }
}

const InvalidOption = createError<[string, string]>('FST_STATIC_INVALID_OPTION', '"%s" option %s');
const InvalidOptionValue = createError<[string, string]>(
  'FST_STATIC_INVALID_OPTION_VALUE',
  '"%s" option %s',
  500,
  TypeError,
);
const InvalidRedirectUrl = createError<[string]>('FST_STATIC_INVALID_REDIRECT_URL', 'Invalid redirect URL: "%s"', 400);
const ForbiddenPath = createError('FST_STATIC_FORBIDDEN_PATH', 'Forbidden', 403);

const STATUS_ERRORS: Record<number, string> = { 412: 'Precondition Failed', 416: 'Range Not Satisfiable' };

const plugin: FastifyPluginAsync<FastifyStaticOptions> = async (fastify, options) => {
  const roots = checkRoots(fastify, options);
  if (options.setHeaders !== undefined && typeof options.setHeaders !== 'function') {
    throw new InvalidOptionValue('setHeaders', 'must be a function');
  }
  const sites = new Sites(roots, options);
  fastify.addHook('onClose', async () => sites.close());

  if (options.decorateReply !== false) {
    fastify.decorateReply('sendFile', function (this: FastifyReply, filename: string, ...rest: unknown[]) {
      const [rootPath, own] =
        typeof rest[0] === 'string' ? (rest as [string, SendOptions?]) : [undefined, rest[0] as SendOptions];
      const site = sites.for(rootPath, own);
      if (site === undefined) this.callNotFound();
      else new Delivery(site, options, this).answer(filename, false);
      return this;
    });
  }
  if (options.serve !== false) serve(fastify, options, sites);
};

/** Routes every path below the prefix. */
function serve(fastify: FastifyInstance, options: FastifyStaticOptions, sites: Sites): void {
  const given = options.prefix ?? '/';
  const prefix = options.prefixAvoidTrailingSlash || given.endsWith('/') ? given : `${given}/`;
  const site = sites.for(undefined, undefined) as Site;
  let match: ((url: string) => string | null | undefined) | undefined;
  const common: Pick<RouteOptions, 'constraints' | 'logLevel' | 'schema' | 'errorHandler'> = {
    schema: { hide: options.schemaHide ?? true } as RouteOptions['schema'] & object,
    errorHandler(error, request, reply) {
      if ((error as { code?: string } | null)?.code === 'ERR_STREAM_PREMATURE_CLOSE') reply.request.raw.destroy();
      else fastify.errorHandler(error, request, reply);
    },
  };
  if (options.constraints !== undefined) common.constraints = options.constraints;
  if (options.logLevel !== undefined) common.logLevel = options.logLevel;
  fastify.route({
    ...common,
    method: ['HEAD', 'GET'],
    url: `${prefix}*`,
    handler(request, reply) {
      match ??= prefixMatcher((request.routeOptions.url as string).slice(0, -1));
      const pathname = match(request.raw.url as string);
      if (pathname === undefined) reply.callNotFound();
      else if (pathname === null) reply.send(new ForbiddenPath());
      else new Delivery(site, options, reply).answer(pathname, true);
    },
  });
  if (options.redirect === true && prefix !== given) {
    fastify.route({
      ...common,
      method: ['HEAD', 'GET'],
      url: given,
      handler: (request, reply) => reply.redirect(withSlash(request.raw.url as string), 301),
    });
  }
}

/** A segment that names something else than itself, or hides a separator. */
const ODD_SEGMENT = /^(?:\.|%2e){1,2}$|\\|%5c|%00/i;

/**
 * The path below the prefix, with its slash and still encoded; `undefined` for a URL that spells the prefix otherwise, and
 * `null` when what stands for a parameter of the prefix is no plain name.
 */
function prefixMatcher(prefix: string): (url: string) => string | null | undefined {
  const pieces = prefix.split(/(:[^/]*)/).map((piece) => (piece.startsWith(':') ? '([^/]+)' : literally(piece)));
  const matcher = pieces.length > 1 ? new RegExp(`^${pieces.join('')}`) : undefined;
  return (url) => {
    const query = url.indexOf('?');
    const pathname = query === -1 ? url : url.slice(0, query);
    let length = prefix.length;
    if (matcher !== undefined) {
      const matched = matcher.exec(pathname);
      if (matched === null) return undefined;
      if (matched.slice(1).some((segment) => ODD_SEGMENT.test(segment))) return null;
      length = matched[0].length;
    } else if (!pathname.startsWith(prefix)) {
      return undefined;
    }
    const rest = pathname.slice(length);
    // Behind the slash of the prefix another one makes an empty segment, which is to be seen and refused.
    return rest.startsWith('/') && !prefix.endsWith('/') ? rest : `/${rest}`;
  };
}

function literally(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

/** The same URL with a slash after its path; never one that names another host. */
function withSlash(url: string): string {
  const local = `/${url.replace(/^[/\\]+/, '')}`;
  try {
    const { pathname, search } = new URL(local, 'http://localhost');
    return `${pathname.endsWith('/') ? pathname : `${pathname}/`}${search}`;
  } catch {
    throw new InvalidRedirectUrl(url);
  }
}

/** One answer on its way. */
class Delivery {
  readonly #site: Site;
  readonly #options: FastifyStaticOptions;
  readonly #reply: FastifyReply;

  constructor(site: Site, options: FastifyStaticOptions, reply: FastifyReply) {
    this.#site = site;
    this.#options = options;
    this.#reply = reply;
  }

  /** Answers for `pathname`, percent-encoded when it comes from a URL. */
  answer(pathname: string, encoded: boolean): void {
    const { request } = this.#reply;
    const conditions = conditionsOf(request.headers);
    const headOnly = request.method === 'HEAD';
    let answer: Answer | undefined;
    try {
      answer = this.#site.respond(pathname, encoded, headOnly, conditions);
    } catch (error) {
      this.#fail(error as ZerosendError);
      return;
    }
    if (answer === undefined) void this.#answerLater(pathname, encoded, headOnly, conditions);
    else this.#deliver(answer, CURRENT);
  }

  async #answerLater(
    pathname: string,
    encoded: boolean,
    headOnly: boolean,
    conditions: RequestConditions | undefined,
  ): Promise<void> {
    const { socket } = this.#reply.request.raw;
    // A client that half-closes while the disk is asked still wants its answer.
    const release = socket instanceof Socket && isPlainSocket(socket) ? hold(socket, 'end') : undefined;
    try {
      const { answer, token } = await this.#site.respondLater(pathname, encoded, headOnly, conditions);
      this.#deliver(answer, token);
    } catch (error) {
      this.#fail(error as ZerosendError);
    } finally {
      release?.();
    }
  }

  #deliver(answer: Answer, token: number): void {
    const reply = this.#reply;
    switch (answer.kind) {
      case 'response':
        if (answer.status in STATUS_ERRORS) reply.send(statusError(answer));
        else this.#send(answer, token);
        return;
      case 'redirect':
        reply.redirect(withSlash(reply.request.raw.url as string), 301);
        return;
      case 'forbidden':
        reply.send(new ForbiddenPath());
        return;
      case 'bad-path':
        reply.send(Object.assign(new Error('Bad Request'), { statusCode: 400 }));
        return;
      default:
        reply.callNotFound();
    }
  }

  #send(answer: Answer, token: number): void {
    const reply = this.#reply;
    const { setHeaders } = this.#options;
    // Whoever is called from here on may ask the engine for something else.
    if (setHeaders !== undefined && token === CURRENT) token = engine().holdCurrent();
    if (reply.statusCode === 200 && answer.status !== 200) reply.code(answer.status);
    const headers = unobstructedHeaders(reply);
    const list = answer.headers;
    if (headers === undefined) {
      for (let at = 0; at < list.length; at += 2) reply.header(list[at] as string, list[at + 1]);
    } else {
      for (let at = 0; at < list.length; at += 2) headers[list[at] as string] = list[at + 1];
    }
    try {
      setHeaders?.(reply, answer.file, statSync(answer.file));
    } catch (error) {
      engine().release(token);
      throw error;
    }
    // Asked again after setHeaders, which may have added a trailer.
    if (
      headers === undefined ||
      (setHeaders !== undefined && unobstructedHeaders(reply) === undefined) ||
      !isPlainResponse(reply.raw)
    ) {
      if (token === CURRENT) token = engine().holdCurrent();
      reply.send(new FileBody(token, answer.length, answer.file));
    } else {
      this.#sendDirectly(answer, headers as Record<string, string>, token);
    }
  }

  /** Nothing stands between: head and body by one native call. */
  #sendDirectly(answer: Answer, headers: Record<string, string>, token: number): void {
    const { raw, log } = this.#reply;
    try {
      raw.writeHead(raw.statusCode, headers);
    } catch (error) {
      if (token !== CURRENT) engine().release(token);
      throw error;
    }
    if (answer.length === 0) {
      raw.end();
      return;
    }
    const sent = sendBody(raw, token, answer.length, (error) => {
      if (error !== undefined) logFailure(log, error, answer.file);
    });
    // The head says something that a bare body cannot follow (somebody has changed the length, say).
    if (!sent) {
      if (token === CURRENT) token = engine().holdCurrent();
      new FileBody(token, answer.length, answer.file).pipe(raw);
    }
  }

  #fail(error: ZerosendError): void {
    const reply = this.#reply;
    reply.log.error({ err: error }, 'the file could not be read');
    // The message of the system names a path of the server, which is nobody's business.
    reply.send(Object.assign(new Error('Internal Server Error', { cause: error }), { statusCode: 500 }));
  }
}

function logFailure(log: FastifyRequest['log'], error: ZerosendError, file: string): void {
  const peerIsGone = error.code === 'EPIPE' || error.code === 'ECONNRESET' || error.code === 'ERR_ZEROSEND_CLOSED';
  if (peerIsGone) log.info({ err: error }, 'the client closed the connection');
  else log.error({ err: error, file }, 'the connection was closed in the middle of a response');
}

/** 412 and 416 as Fastify's error handler likes them. */
function statusError(answer: Answer): Error {
  const headers: Record<string, string> = {};
  for (let at = 0; at < answer.headers.length; at += 2) {
    headers[answer.headers[at] as string] = answer.headers[at + 1] as string;
  }
  return Object.assign(new Error(STATUS_ERRORS[answer.status]), { statusCode: answer.status, headers });
}

/** The sites of a registration: its own, and those that `sendFile` asked for with other roots or options. */
class Sites {
  static readonly #MOST = 64;
  readonly #roots: string[] | undefined;
  readonly #options: FastifyStaticOptions;
  readonly #sites = new Map<string, Site>();

  constructor(roots: string[] | undefined, options: FastifyStaticOptions) {
    this.#roots = roots;
    this.#options = options;
    if (roots !== undefined) this.for(undefined, undefined);
  }

  /** The site for these; `undefined` without any root. */
  for(rootPath: string | undefined, own: SendOptions | undefined): Site | undefined {
    const key = rootPath === undefined && own === undefined ? '' : JSON.stringify([rootPath, own]);
    const known = this.#sites.get(key);
    if (known !== undefined) return known;
    const roots = rootPath === undefined ? this.#roots : [rootPath];
    if (roots === undefined) return undefined;
    const site = new Site(roots, { ...this.#options, ...own });
    if (this.#sites.size >= Sites.#MOST) {
      const [oldest] = [...this.#sites.keys()].filter((other) => other !== '');
      if (oldest !== undefined) {
        this.#sites.get(oldest)?.close();
        this.#sites.delete(oldest);
      }
    }
    this.#sites.set(key, site);
    return site;
  }

  close(): void {
    for (const site of this.#sites.values()) site.close();
    this.#sites.clear();
  }
}

function checkRoots(fastify: FastifyInstance, options: FastifyStaticOptions): string[] | undefined {
  const { root } = options;
  if (root === undefined) {
    if (options.serve === false) return undefined;
    throw new InvalidOption('root', 'is required');
  }
  if (!Array.isArray(root)) return [checkRoot(fastify, root, options)];
  if (root.length === 0) throw new InvalidOption('root', 'array requires one or more paths');
  const roots = root.map((entry) => checkRoot(fastify, entry, options));
  if (new Set(roots).size !== roots.length) throw new InvalidOption('root', 'array contains duplicate paths');
  return roots;
}

function checkRoot(fastify: FastifyInstance, given: string | URL, options: FastifyStaticOptions): string {
  const root = given instanceof URL && given.protocol === 'file:' ? fileURLToPath(given) : given;
  if (typeof root !== 'string') throw new InvalidOptionValue('root', 'must be a string or array of strings');
  if (!path.isAbsolute(root)) throw new InvalidOption('root', 'must be an absolute path');
  const stat = statSync(root, { throwIfNoEntry: false });
  if (stat === undefined) {
    if (!options.suppressWarning) fastify.log.warn(`"root" path "${root}" must exist`);
  } else if (!stat.isDirectory()) {
    throw new InvalidOption('root', 'must be a directory');
  }
  return root;
}

/** The plugin, for `fastify.register`. */
export const fastifyStatic = fastifyPlugin(plugin, { fastify: '5.x', name: '@fastify/static' });
export default fastifyStatic;
export { fastifyStatic as 'module.exports' };
