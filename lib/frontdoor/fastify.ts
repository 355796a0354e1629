/** `frontDoor` for Fastify: a `serverFactory`. */
import { subscribe } from 'node:diagnostics_channel';
import http, { type Server } from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';

import type { FastifyInstance, FastifyServerFactory, RouteOptions } from 'fastify';
import fastifyPlugin from 'fastify-plugin';
import type { AccessLogEntry } from '#native';
import { hooksOf } from '../node/fastify-internals.js';
import type { FastifyStaticOptions } from '../static/options.js';
import { plugin, statisticsOf } from '../static/plugin.js';
import { Door } from './door.js';
import { type FrontDoorMount, type FrontDoorOptions, type FrontDoorPlan, planFrontDoor } from './options.js';

/** A mount for Fastify. */
export interface FastifyFrontDoorMount extends FrontDoorMount, Pick<FastifyStaticOptions, 'list'> {}

/** Options of the front door for Fastify. */
export interface FastifyFrontDoorOptions
  extends FrontDoorOptions<FastifyFrontDoorMount>,
    Pick<FastifyStaticOptions, 'list'> {
  /**
   * Write natively answered requests to the logger of the application, in batches: `request completed` with `reqId`, `req`
   * (`method`, `url`, `host`, `remoteAddress`, `remotePort`), `res.statusCode` and `responseTime` in milliseconds. Default
   * false.
   */
  log?: boolean | undefined;
}

/** The hooks that a request passes before its answer is sent; those after it change nothing any more. */
const HOOKS = ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onSend'];

/**
 * A `serverFactory` for Fastify with a front door: GET and HEAD of files below the prefixes are answered by native threads
 * on the port of the application, even while JavaScript is busy; everything else reaches the application as if nothing
 * stood there. The plugin is registered for the same prefixes with the same options, for the connections that the
 * application has, for `inject()`, and for TLS and HTTP/2, where the front door is disabled.
 *
 * ```ts
 * const app = fastify({ serverFactory: frontDoor({ root: '/srv/app/public', prefix: '/static/' }) });
 * ```
 *
 * Natively answered requests pass no hooks, and the application's request log does not see them: see `delegate`, `private`
 * and `log`. Routes of the application below a prefix are found and left to it.
 *
 * Throws `ERR_ZEROSEND_INVALID_ARGUMENT` for options that are wrong, `ERR_ZEROSEND_UNSUPPORTED` elsewhere than on Linux.
 */
export function frontDoor(options: FastifyFrontDoorOptions): FastifyServerFactory {
  const plan = planFrontDoor<FastifyFrontDoorMount>(options, (mount) => Boolean(mount.list));
  return (handler, given) => {
    const server = createServer(handler as http.RequestListener, given as ServerOptions);
    const desk = new Desk(plan, options.log === true);
    awaitApplication(server, (app) => desk.open(app, server));
    return server as Server;
  };
}

/** What Fastify gives to a factory, as far as it is about the server; it leaves obeying it to the factory. */
interface ServerOptions {
  http?: http.ServerOptions | null;
  https?: https.ServerOptions | true | null;
  http2?: boolean;
  http2SessionTimeout?: number;
  connectionTimeout?: number;
  keepAliveTimeout?: number;
  requestTimeout?: number;
  maxRequestsPerSocket?: number;
}

type AnyServer = Server | https.Server | http2.Http2Server | http2.Http2SecureServer;

/** The server that Fastify would have made. */
function createServer(handler: http.RequestListener, options: ServerOptions): AnyServer {
  const secure = options.https === true ? {} : options.https;
  if (options.http2 === true) {
    const listener = handler as unknown as (
      request: http2.Http2ServerRequest,
      response: http2.Http2ServerResponse,
    ) => void;
    const server = secure
      ? http2.createSecureServer(secure as http2.SecureServerOptions, listener)
      : http2.createServer((options.http ?? {}) as http2.ServerOptions, listener);
    server.on('session', (session) => session.setTimeout(options.http2SessionTimeout ?? 0, () => session.close()));
    server.setTimeout(options.connectionTimeout ?? 0);
    return server;
  }
  const server = secure ? https.createServer(secure, handler) : http.createServer(options.http ?? {}, handler);
  if (options.keepAliveTimeout !== undefined) server.keepAliveTimeout = options.keepAliveTimeout;
  if (options.requestTimeout !== undefined) server.requestTimeout = options.requestTimeout;
  server.setTimeout(options.connectionTimeout ?? 0);
  if (options.maxRequestsPerSocket) server.maxRequestsPerSocket = options.maxRequestsPerSocket;
  return server;
}

/** Servers whose applications are still being made. */
const awaited = new WeakMap<object, (app: FastifyInstance) => void>();
let subscribed = false;

/** Calls `found` with the application of `server`, which does not exist yet when its server is made. */
function awaitApplication(server: object, found: (app: FastifyInstance) => void): void {
  awaited.set(server, found);
  if (subscribed) return;
  subscribed = true;
  subscribe('fastify.initialization', (message) => {
    const { fastify: app } = message as { fastify: FastifyInstance };
    awaited.get(app.server)?.(app);
    awaited.delete(app.server);
  });
}

/** What stands between a front door and its application: routes, warnings, the log. */
class Desk {
  readonly #plan: FrontDoorPlan<FastifyFrontDoorMount>;
  readonly #log: boolean;
  /** Routes of GET and HEAD. */
  readonly #routes = new Set<string>();

  constructor(plan: FrontDoorPlan<FastifyFrontDoorMount>, log: boolean) {
    this.#plan = plan;
    this.#log = log;
  }

  open(app: FastifyInstance, server: AnyServer): void {
    const { cache, ownsCache, headers, mounts } = this.#plan;
    app.addHook('onRoute', (route) => this.#note(route));
    const disable = (reason: string) => app.log.warn(`front door disabled: ${reason}`);
    if (server instanceof http.Server) {
      const door = new Door(server, this.#plan, {
        opening: () => this.#opening(app),
        disable,
        log: this.#log ? (entries) => write(app, entries) : undefined,
      });
      statisticsOf(app).frontDoor = () => door.stats();
    } else {
      disable('it speaks neither TLS nor HTTP/2; files are served by the plugin');
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

  #note({ method, url }: RouteOptions): void {
    const methods = Array.isArray(method) ? method : [method];
    if (methods.includes('GET') || methods.includes('HEAD')) this.#routes.add(url);
  }

  /** The application is complete: what of it lies below the prefixes? */
  #opening(app: FastifyInstance): string[] {
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
        'these routes lie below a prefix of the front door; requests for them are left to the application',
      );
    }
    const hooks = HOOKS.filter((name) => (hooksOf(app)[name]?.length ?? 0) > 0);
    if (hooks.length > 0 && open.length > 0) {
      app.log.warn(
        { hooks, prefixes: open.map(({ prefix }) => prefix) },
        'requests that the front door answers do not pass these hooks; if they restrict access, set "delegate: true"',
      );
    }
    return excludeRoutes;
  }
}

/** Whether a route is one for paths below the literal `prefix` in particular: a router prefers it to `prefix*`. */
function isBelow(route: string, prefix: string): boolean {
  const wanted = prefix.slice(0, -1).toLowerCase();
  const path = route.toLowerCase();
  return path === wanted || path.startsWith(`${wanted}/`);
}

/** Lines such as Fastify's own, of stand-ins for its requests and replies, so that the application's serializers see them. */
function write(app: FastifyInstance, entries: readonly AccessLogEntry[]): void {
  const label = (app.initialConfig as { requestIdLogLabel?: string }).requestIdLogLabel ?? 'reqId';
  const ids = app as unknown as { genReqId(raw: { method: string; url: string; headers: object }): string };
  for (const { method, url, host, remoteAddress, remotePort, statusCode, responseTime, aborted } of entries) {
    const headers = host === undefined ? {} : { host };
    const socket = { remoteAddress, remotePort };
    const req = {
      method,
      url,
      originalUrl: url,
      host,
      hostname: host,
      headers,
      ip: remoteAddress,
      socket,
      raw: { socket },
    };
    const line = { [label]: ids.genReqId({ method, url, headers }), req, res: { statusCode }, responseTime };
    app.log.info(aborted ? { ...line, aborted } : line, 'request completed');
  }
}
