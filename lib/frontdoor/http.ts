/** `frontDoor` for a plain `http.Server`. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { Server as HttpServer } from 'node:http';

import { engine } from '../runtime/engine.js';
import type { FrontDoorStatistics } from '../server/statistics.js';
import { createStaticHandler, type StaticHandler } from '../static/handler.js';
import { invalid } from '../util/errors.js';
import { Door } from './door.js';
import { type FrontDoorOptions, findMount, hasCredentials, planFrontDoor } from './options.js';

/** A front door that stands. */
export interface FrontDoor {
  /** What it has counted; `null` while it is disabled. */
  stats(): FrontDoorStatistics | null;
}

/**
 * Serves files natively on the port of `server`: GET and HEAD below the prefixes are answered by threads of their own, even
 * while JavaScript is busy, and every other connection is given to `server` as if nothing stood there. Further requests on
 * such a connection are answered by the same options in JavaScript, before the listeners of `request`. Call it before
 * `server.listen()`.
 *
 * It is disabled, with a process warning, for servers with TLS and in workers of a cluster whose primary accepts
 * the connections: then files are served by JavaScript.
 *
 * Throws `ERR_ZEROSEND_INVALID_ARGUMENT` for options that are wrong and servers that listen already, and
 * `ERR_ZEROSEND_UNSUPPORTED` elsewhere than on Linux.
 */
export function frontDoor(server: Server, options: FrontDoorOptions): FrontDoor {
  if (typeof (server as Server | undefined)?.listen !== 'function') throw invalid('server', server, 'an http.Server');
  const plan = planFrontDoor(options, () => false);
  let disabled = false;
  const disable = (reason: string) => {
    disabled = true;
    process.emitWarning(`front door disabled: ${reason}`, { code: 'ZEROSEND_FRONT_DOOR' });
  };
  let door: Door | undefined;
  if (server instanceof HttpServer) door = new Door(server, plan, { opening: () => [], disable });
  else disable('it does not speak TLS; files are served by JavaScript');

  const handlers = new Map<string, StaticHandler>();
  const { cache } = plan;
  for (const { root: _, roots, prefix, delegate, ...mount } of plan.mounts) {
    if (delegate === true) continue;
    const own = Object.keys(plan.headers).length > 0;
    handlers.set(
      prefix,
      createStaticHandler(roots, {
        ...mount,
        cache: cache ?? false,
        ...(own ? { setHeaders: (response) => response.setHeaders(new Map(Object.entries(plan.headers))) } : {}),
      }),
    );
  }
  const excludeRoutes = [...plan.excludeRoutes];
  serveBefore(server, (request, response, next) => {
    const { url = '/' } = request;
    const query = url.indexOf('?');
    const pathname = query === -1 ? url : url.slice(0, query);
    const mount = findMount(plan.mounts, pathname);
    const handler = mount && handlers.get(mount.prefix);
    const isOurs = request.method === 'GET' || request.method === 'HEAD';
    if (!isOurs || handler === undefined) return next();
    if (excludeRoutes.length > 0 && engine().matchesRoute(excludeRoutes, pathname)) return next();
    if (mount?.private === true && hasCredentials(request.headers)) return next();
    request.url = url.slice((mount?.prefix.length ?? 1) - 1);
    const mounted = Object.assign(request, { originalUrl: url }) as IncomingMessage & { originalUrl?: string };
    handler(request, response, (error) => {
      request.url = url;
      delete mounted.originalUrl;
      if (error === undefined) next();
      else fail(response);
    });
  });
  return { stats: () => (disabled || door === undefined ? null : door.stats()) };
}

type Serve = (request: IncomingMessage, response: ServerResponse, next: () => void) => void;

/** Has `serve` see requests before the listeners of `request` do, now and later. */
function serveBefore(server: Server, serve: Serve): void {
  const emit = server.emit as (event: string | symbol, ...args: unknown[]) => boolean;
  server.emit = ((event: string | symbol, ...args: unknown[]) => {
    if (event !== 'request') return emit.call(server, event, ...args);
    const [request, response] = args as [IncomingMessage, ServerResponse];
    serve(request, response, () => emit.call(server, 'request', request, response));
    return server.listenerCount('request') > 0;
  }) as Server['emit'];
}

function fail(response: ServerResponse): void {
  if (response.headersSent) response.destroy();
  else response.writeHead(500, { 'content-type': 'text/plain; charset=utf-8' }).end('Internal Server Error\n');
}
