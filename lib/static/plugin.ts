/**
 * The plugin registers itself: decorators and routes. Options are checked in options.ts, answers become replies in
 * delivery.ts; which file answers and with which headers is decided in the engine, see site.ts.
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

/** What the plugin adds to the instance. */
export interface ZerosendDecorator {
  /** Counts of all registrations that share the decorator, as a copy. */
  stats(): ZerosendStatistics;
}

declare module 'fastify' {
  interface FastifyReply {
    /**
     * Answers with a file below the root, or below `rootPath`. A status that was set before is kept. The path is not
     * percent-decoded; one that leads out of the root is 403, one that names nothing 404.
     */
    sendFile(filename: string, rootPath?: string): FastifyReply;
    sendFile(filename: string, options?: ReplyOptions): FastifyReply;
    sendFile(filename: string, rootPath?: string, options?: ReplyOptions): FastifyReply;
    /** As `sendFile`, to be saved under `filename` (default: the file's own name) instead of shown. */
    download(filepath: string, options?: ReplyOptions): FastifyReply;
    download(filepath: string, filename?: string): FastifyReply;
    download(filepath: string, filename?: string, options?: ReplyOptions): FastifyReply;
    /** How the bytes of a file left, from the moment they have: in `onResponse` hooks. `null` for other responses. */
    zerosendMethod: ResponseMethod | null;
  }
  interface FastifyInstance {
    zerosend: ZerosendDecorator;
  }
}

/** The statistics behind each decorator, for registrations that find it there already. */
const shared = new WeakMap<ZerosendDecorator, Statistics>();

export const plugin: FastifyPluginAsync<FastifyStaticOptions> = async (fastify, options) => {
  const roots = checkOptions(fastify, options);
  const given = options.prefix ?? '/';
  const prefix = options.prefixAvoidTrailingSlash || given.endsWith('/') ? given : `${given}/`;
  const sites = new Sites(roots, options);
  fastify.addHook('onClose', async () => sites.close());
  const statistics = statisticsOf(fastify);
  statistics.watch(sites.cache);
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

/** The statistics of an application, with the decorator that shows them. */
export function statisticsOf(fastify: FastifyInstance): Statistics {
  if (!fastify.hasReplyDecorator('zerosendMethod')) fastify.decorateReply('zerosendMethod', null);
  const known = fastify.hasDecorator('zerosend') ? shared.get(fastify.zerosend) : undefined;
  if (known !== undefined) return known;
  const statistics = new Statistics();
  const decorator: ZerosendDecorator = { stats: () => statistics.readAll() };
  shared.set(decorator, statistics);
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

/** What all routes of a registration have. */
function common(fastify: FastifyInstance, options: FastifyStaticOptions): CommonOptions {
  const route: CommonOptions = {
    schema: { hide: options.schemaHide ?? true } as RouteOptions['schema'] & object,
    errorHandler(error, request, reply) {
      if ((error as { code?: string } | null)?.code === 'ERR_STREAM_PREMATURE_CLOSE') {
        reply.request.raw.destroy();
        return undefined;
      }
      const { errorHandler } = fastify;
      skipErrorHandler(reply, errorHandler);
      // What an async handler returns is the answer.
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
    ...common(fastify, options),
    method: ['HEAD', 'GET'],
    url: `${prefix}*`,
    handler(request, reply) {
      const plain = withoutReservedEscapes(request.raw.url as string, semicolon);
      if (plain !== undefined) {
        routeAgain(fastify, request, reply, plain);
        return;
      }
      // Now and not before: a prefix of the instance comes on top.
      match ??= prefixMatcher((request.routeOptions.url as string).slice(0, -1));
      const pathname = match(request.raw.url as string);
      if (pathname === undefined) reply.callNotFound();
      else if (pathname === null) reply.send(new errors.FST_STATIC_FORBIDDEN_PATH());
      else delivery.answer(reply, site, { pathname, encoded: true });
    },
  });
  const given = options.prefix ?? '/';
  if (options.redirect === true && prefix !== given) {
    fastify.get(given, common(fastify, options), (request, reply) =>
      reply.redirect(withSlash(request.raw.url as string), 301),
    );
  }
}

/**
 * Routes a request by `url`, another spelling of its own: a route of the application that has this spelling, and its guards,
 * must not be passed by.
 */
function routeAgain(fastify: FastifyInstance, request: FastifyRequest, reply: FastifyReply, url: string): void {
  const raw: IncomingMessage & { originalUrl?: string } = request.raw;
  // `rewriteUrl` has been at work, and would be again.
  if (raw.originalUrl !== undefined) {
    reply.callNotFound();
    return;
  }
  reply.hijack();
  raw.originalUrl = raw.url as string;
  raw.url = url;
  fastify.routing(raw, reply.raw);
}

/** A route for each file that is there now. */
async function routeEach(
  fastify: FastifyInstance,
  options: FastifyStaticOptions,
  prefix: string,
  sites: Sites,
  roots: readonly string[],
  delivery: Delivery,
): Promise<void> {
  const { routes, skipped } = await fileRoutes(roots, prefix, options);
  for (const file of skipped) fastify.log.warn(`"${file}" has no route: a star in a name needs "wildcard: true"`);
  for (const { url, pathname, root } of routes) {
    const site = (roots.length === 1 ? sites.own : sites.for(root, undefined)) as Site;
    // As @fastify/static tells it to `allowedPath` here.
    const wanted = { pathname, encoded: false, root: root.endsWith('/') ? root : `${root}/` };
    fastify.route({
      ...common(fastify, options),
      method: ['HEAD', 'GET'],
      url,
      handler: (_request, reply) => delivery.answer(reply, site, wanted),
    });
  }
}
