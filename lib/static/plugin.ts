/**
 * The Fastify plugin: decorators and routes. Options are checked in options.ts. The engine selects the file and its headers, see
 * site.ts; delivery.ts makes the reply.
 */
import type { IncomingMessage } from 'node:http';
import path from 'node:path';

import { create as contentDisposition } from 'content-disposition';
import type { FastifyInstance, FastifyPluginAsync, FastifyReply, FastifyRequest, RouteOptions } from 'fastify';

import { skipErrorHandler } from '../node/fastify-internals.js';
import type { ResponseMethod } from '../types/method.js';
import { Delivery } from './delivery.js';
import * as errors from './errors.js';
import { fileRoutes } from './files.js';
import { checkOptions, type FastifyStaticOptions, type ReplyOptions } from './options.js';
import type { Overrides } from './overrides.js';
import { type PrefixMatcher, prefixMatcher, withoutReservedEscapes, withSlash } from './paths.js';
import type { Site } from './site.js';
import { Sites } from './sites.js';
import { Statistics, type ZerosendStatistics } from './statistics.js';

/** The decorator of the Fastify instance. */
export interface ZerosendDecorator {
  /** A copy of the counters of all registrations that share the decorator. */
  stats(): ZerosendStatistics;
}

declare module 'fastify' {
  interface FastifyReply {
    /**
     * Sends a file below the root, or below `rootPath`. A status that was set before is kept. The path is not percent-decoded; a
     * path that leaves the root is answered with 403, a missing file with 404.
     */
    sendFile(filename: string, rootPath?: string): FastifyReply;
    sendFile(filename: string, options?: ReplyOptions): FastifyReply;
    sendFile(filename: string, rootPath?: string, options?: ReplyOptions): FastifyReply;
    /** As `sendFile`, with `Content-Disposition: attachment` and `filename` (default: the name of the file). */
    download(filepath: string, options?: ReplyOptions): FastifyReply;
    download(filepath: string, filename?: string): FastifyReply;
    download(filepath: string, filename?: string, options?: ReplyOptions): FastifyReply;
    /** The method that sent the bytes of a file. Set when they were sent: read it in `onResponse` hooks. `null` for other responses. */
    zerosendMethod: ResponseMethod | null;
  }
  interface FastifyInstance {
    zerosend: ZerosendDecorator;
  }
}

/** The statistics of each decorator, for later registrations. */
const decorated = new WeakMap<ZerosendDecorator, Statistics>();

export const plugin: FastifyPluginAsync<FastifyStaticOptions> = async (fastify, options) => {
  const roots = checkOptions(fastify, options);
  const given = options.prefix ?? '/';
  const prefix = options.prefixAvoidTrailingSlash || given.endsWith('/') ? given : `${given}/`;
  const sites = new Sites(roots, options);
  fastify.addHook('onClose', async () => sites.close());
  const statistics = statisticsOf(fastify);
  statistics.setCache(sites.cache);
  const delivery = new Delivery(options, prefix, statistics);

  if (options.decorateReply !== false) decorate(fastify, sites, delivery);
  if (options.serve === false) return;
  const { wildcard } = options;
  if (wildcard === undefined || wildcard === true) {
    routeAll(fastify, options, prefix, sites.own as Site, delivery);
  } else {
    await routeEach(fastify, options, prefix, sites, roots as string[], delivery);
  }
};

/** The statistics of an application; adds the decorator if necessary. */
export function statisticsOf(fastify: FastifyInstance): Statistics {
  if (!fastify.hasReplyDecorator('zerosendMethod')) fastify.decorateReply('zerosendMethod', null);
  const existing = fastify.hasDecorator('zerosend') ? decorated.get(fastify.zerosend) : undefined;
  if (existing !== undefined) return existing;
  const statistics = new Statistics();
  const decorator: ZerosendDecorator = { stats: () => statistics.readAll() };
  decorated.set(decorator, statistics);
  fastify.decorate('zerosend', decorator);
  return statistics;
}

function decorate(fastify: FastifyInstance, sites: Sites, delivery: Delivery): void {
  const send = (
    reply: FastifyReply,
    pathname: string,
    root: ReplyOptions['root'],
    own: ReplyOptions | undefined,
  ): void => {
    let site: Site | undefined;
    let unrooted = false;
    let overrides: Overrides | undefined;
    try {
      overrides = sites.overrides(own);
      site = sites.for(root, own);
      if (site === undefined && path.isAbsolute(pathname)) {
        ({ site, pathname } = sites.unrooted(pathname, own));
        unrooted = true;
      }
    } catch (error) {
      reply.send(error);
      return;
    }
    if (site === undefined) reply.callNotFound();
    else delivery.answer(reply, site, { pathname, encoded: false, unrooted, options: own, overrides });
  };

  type Second = string | ReplyOptions | undefined;
  fastify.decorateReply(
    'sendFile',
    function (this: FastifyReply, filename: string, second?: Second, third?: ReplyOptions) {
      const own = typeof second === 'object' && second !== null ? second : third;
      send(this, filename, typeof second === 'string' ? second : own?.root, own);
      return this;
    },
  );
  fastify.decorateReply('download', function (this: FastifyReply, file: string, second?: Second, third?: ReplyOptions) {
    const own = typeof second === 'object' && second !== null ? second : third;
    const name = typeof second === 'string' ? second : file;
    this.header('content-disposition', contentDisposition(path.basename(name)));
    send(this, file, own?.root, own);
    return this;
  });
}

type CommonOptions = Pick<RouteOptions, 'constraints' | 'logLevel' | 'schema' | 'errorHandler'>;

/** The options of all routes of a registration. */
function commonOptions(fastify: FastifyInstance, options: FastifyStaticOptions): CommonOptions {
  const route: CommonOptions = {
    schema: { hide: options.schemaHide ?? true } as RouteOptions['schema'] & object,
    errorHandler(error, request, reply) {
      if ((error as { code?: string } | null)?.code === 'ERR_STREAM_PREMATURE_CLOSE') {
        reply.request.raw.destroy();
        return undefined;
      }
      const { errorHandler } = fastify;
      skipErrorHandler(reply, errorHandler);
      // The result of an async error handler is the reply.
      return errorHandler(error, request, reply);
    },
  };
  if (options.constraints !== undefined) route.constraints = options.constraints;
  if (options.logLevel !== undefined) route.logLevel = options.logLevel;
  return route;
}

/** One route for every path below the prefix. */
function routeAll(
  fastify: FastifyInstance,
  options: FastifyStaticOptions,
  prefix: string,
  site: Site,
  delivery: Delivery,
): void {
  let match: PrefixMatcher | undefined;
  const semicolon = fastify.initialConfig.useSemicolonDelimiter === true;
  fastify.route({
    ...commonOptions(fastify, options),
    method: ['HEAD', 'GET'],
    url: `${prefix}*`,
    handler(request, reply) {
      const plain = withoutReservedEscapes(request.raw.url as string, semicolon);
      if (plain !== undefined) {
        routeAgain(fastify, request, reply, plain);
        return;
      }
      // The URL of the route, including the prefix of the instance, is known only now.
      match ??= prefixMatcher((request.routeOptions.url as string).slice(0, -1));
      const pathname = match(request.raw.url as string);
      if (pathname === undefined) reply.callNotFound();
      else if (pathname === null) reply.send(new errors.FST_STATIC_FORBIDDEN_PATH());
      else delivery.answer(reply, site, { pathname, encoded: true });
    },
  });
  const given = options.prefix ?? '/';
  if (options.redirect === true && prefix !== given) {
    fastify.get(given, commonOptions(fastify, options), (request, reply) =>
      reply.redirect(withSlash(request.raw.url as string), 301),
    );
  }
}

/**
 * Routes a request again with `url`, its URL with fewer escapes: a route of the application for that URL, and its hooks, must not
 * be bypassed.
 */
function routeAgain(fastify: FastifyInstance, request: FastifyRequest, reply: FastifyReply, url: string): void {
  const raw: IncomingMessage & { originalUrl?: string } = request.raw;
  // `rewriteUrl` was applied, and would be applied again.
  if (raw.originalUrl !== undefined) {
    reply.callNotFound();
    return;
  }
  reply.hijack();
  raw.originalUrl = raw.url as string;
  raw.url = url;
  fastify.routing(raw, reply.raw);
}

/** A route for each existing file. */
async function routeEach(
  fastify: FastifyInstance,
  options: FastifyStaticOptions,
  prefix: string,
  sites: Sites,
  roots: readonly string[],
  delivery: Delivery,
): Promise<void> {
  const { routes, skipped } = await fileRoutes(roots, prefix, options);
  for (const file of skipped)
    fastify.log.warn(`"${file}" is not served: an asterisk in a file name requires "wildcard: true"`);
  for (const { url, pathname, root } of routes) {
    const site = (roots.length === 1 ? sites.own : sites.for(root, undefined)) as Site;
    // `allowedPath` gets the root with a trailing slash, as in @fastify/static.
    const file = { pathname, encoded: false, root: root.endsWith('/') ? root : `${root}/` };
    fastify.route({
      ...commonOptions(fastify, options),
      method: ['HEAD', 'GET'],
      url,
      handler: (_request, reply) => delivery.answer(reply, site, file),
    });
  }
}
