/** `frontDoor` for Fastify: a `serverFactory`. */
import http, { type Server } from 'node:http';

import type { FastifyInstance, FastifyServerFactory, RouteOptions } from 'fastify';
import fastifyPlugin from 'fastify-plugin';
import { hooksOf } from '../node/fastify-internals.js';
import type { FastifyStaticOptions } from '../static/options.js';
import { plugin, statisticsOf } from '../static/plugin.js';
import { type AnyServer, createServer, onApplication, type ServerOptions } from './fastify-server.js';
import { Handoff } from './handoff.js';
import { type FrontDoorMount, type FrontDoorOptions, type FrontDoorPlan, planFrontDoor } from './options.js';
import { writeRequestLog } from './request-log.js';

/** A mount for Fastify. */
export interface FastifyFrontDoorMount extends FrontDoorMount, Pick<FastifyStaticOptions, 'list'> {}

/** Options of the front door for Fastify. */
export interface FastifyFrontDoorOptions
  extends FrontDoorOptions<FastifyFrontDoorMount>,
    Pick<FastifyStaticOptions, 'list'> {
  /**
   * Log natively answered requests with the logger of the application, in batches: `request completed` with `reqId`, `req`
   * (`method`, `url`, `host`, `remoteAddress`, `remotePort`), `res.statusCode` and `responseTime` in milliseconds. Default
   * false.
   */
  log?: boolean | undefined;
}

/** The hooks that run before a response is sent. */
const REQUEST_HOOKS = ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onSend'];

/**
 * A `serverFactory` for Fastify with a front door: native threads answer GET and HEAD requests for files below the prefixes on the
 * port of the application, even while JavaScript is busy. All other requests reach the application unchanged. The plugin is
 * registered for the same prefixes with the same options: for connections that were handed off to the application, for
 * `inject()`, and for TLS and HTTP/2, which disable the front door.
 *
 * ```ts
 * const app = fastify({ serverFactory: frontDoor({ root: '/srv/app/public', prefix: '/static/' }) });
 * ```
 *
 * Natively answered requests bypass the hooks and the request log of the application: see `delegate`, `private` and `log`. Routes of
 * the application below a prefix are excluded automatically.
 *
 * Throws `ERR_ZEROSEND_INVALID_ARGUMENT`, and `ERR_ZEROSEND_UNSUPPORTED` on other platforms than Linux.
 */
export function frontDoor(options: FastifyFrontDoorOptions): FastifyServerFactory {
  const plan = planFrontDoor<FastifyFrontDoorMount>(options, (mount) => Boolean(mount.list));
  return (handler, given) => {
    const server = createServer(handler as http.RequestListener, given as ServerOptions);
    const host = new FastifyHost(plan, options.log === true);
    onApplication(server, (app) => host.attach(app, server));
    return server as Server;
  };
}

/** Connects a front door with its application: routes, warnings, log. */
class FastifyHost {
  readonly #plan: FrontDoorPlan<FastifyFrontDoorMount>;
  readonly #log: boolean;
  /** Routes for GET and HEAD. */
  readonly #routes = new Set<string>();

  constructor(plan: FrontDoorPlan<FastifyFrontDoorMount>, log: boolean) {
    this.#plan = plan;
    this.#log = log;
  }

  attach(app: FastifyInstance, server: AnyServer): void {
    const { cache, ownsCache, headers, mounts } = this.#plan;
    app.addHook('onRoute', (route) => this.#addRoute(route));
    const disable = (reason: string) => app.log.warn(`front door disabled: ${reason}`);
    if (server instanceof http.Server) {
      const handoff = new Handoff(server, this.#plan, {
        routes: () => this.#excludedRoutes(app),
        disable,
        log: this.#log ? (entries) => writeRequestLog(app, entries) : undefined,
      });
      statisticsOf(app).frontDoor = () => handoff.stats();
    } else {
      disable('TLS and HTTP/2 are not supported; files are served by the plugin');
    }
    for (const { root: _, roots, prefix, delegate, private: __, onMissing, ...mount } of mounts) {
      const options: FastifyStaticOptions = {
        ...mount,
        root: roots,
        prefix,
        cache: cache ?? false,
        decorateReply: false,
      };
      if (roots.length === 1) options.root = roots[0] as string;
      if (Object.keys(headers).length > 0) options.setHeaders = (reply) => void reply.headers(headers);
      app.register(fastifyPlugin(plugin, { fastify: '5.x', name: 'zerosend-front-door' }), options);
    }
    if (ownsCache) app.addHook('onClose', async () => cache?.close());
  }

  #addRoute({ method, url }: RouteOptions): void {
    const methods = Array.isArray(method) ? method : [method];
    if (methods.includes('GET') || methods.includes('HEAD')) this.#routes.add(url);
  }

  /** The routes of the application below the prefixes, after all routes were added. Logs warnings about routes and hooks. */
  #excludedRoutes(app: FastifyInstance): string[] {
    const open = this.#plan.mounts.filter((mount) => mount.delegate !== true);
    const own = new Set(open.map(({ prefix }) => `${prefix}*`));
    const delegated = new Set(this.#plan.mounts.filter((mount) => mount.delegate).map(({ prefix }) => `${prefix}*`));
    const excludeRoutes = [...this.#routes].filter(
      (route) => !own.has(route) && open.some(({ prefix }) => isBelow(route, prefix)),
    );
    const unexpected = excludeRoutes.filter((route) => !delegated.has(route));
    if (unexpected.length > 0) {
      app.log.warn(
        { routes: unexpected },
        'these routes are below a prefix of the front door; requests for them are handed off to the application',
      );
    }
    const hooks = REQUEST_HOOKS.filter((name) => (hooksOf(app)[name]?.length ?? 0) > 0);
    if (hooks.length > 0 && open.length > 0) {
      app.log.warn(
        { hooks, prefixes: open.map(({ prefix }) => prefix) },
        'requests answered by the front door bypass these hooks; if they restrict access, set delegate: true',
      );
    }
    return excludeRoutes;
  }
}

/** Whether a route is below `prefix`: the router prefers it to `prefix*`. */
function isBelow(route: string, prefix: string): boolean {
  const base = prefix.slice(0, -1).toLowerCase();
  const path = route.toLowerCase();
  return path === base || path.startsWith(`${base}/`);
}
