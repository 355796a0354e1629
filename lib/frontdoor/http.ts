/** `frontDoor` for a plain `http.Server`. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { Server as HttpServer } from 'node:http';

import { engine } from '../runtime/engine.js';
import type { FrontDoorStatistics } from '../server/statistics.js';
import { createStaticHandler, type StaticHandler } from '../static/handler.js';
import { invalid } from '../util/errors.js';
import { Handoff } from './handoff.js';
import { type FrontDoorOptions, findMount, hasCredentials, planFrontDoor } from './options.js';

/** The front door of an `http.Server`. */
export interface FrontDoor {
  /** A copy of the counters; `null` if the front door is disabled. */
  stats(): FrontDoorStatistics | null;
}

/**
 * Serves files with native threads on the port of `server`: they answer GET and HEAD requests below the prefixes, even while
 * JavaScript is busy. A connection with any other request is handed off to `server`, which receives the request unchanged. Later
 * requests for files on that connection are answered in JavaScript with the same options, before the listeners of `request`. Must
 * be called before `server.listen()`.
 *
 * Disabled, with a process warning, for servers with TLS and in workers of a cluster whose primary process accepts the
 * connections: then files are served in JavaScript.
 *
 * Throws `ERR_ZEROSEND_INVALID_ARGUMENT`, also if the server is already listening, and `ERR_ZEROSEND_UNSUPPORTED` on other
 * platforms than Linux.
 */
export function frontDoor(server: Server, options: FrontDoorOptions): FrontDoor {
  if (typeof (server as Server | undefined)?.listen !== 'function') throw invalid('server', server, 'an http.Server');
  const plan = planFrontDoor(options, () => false);
  let disabled = false;
  const disable = (reason: string) => {
    disabled = true;
    process.emitWarning(`front door disabled: ${reason}`, { code: 'ZEROSEND_FRONT_DOOR' });
  };
  let handoff: Handoff | undefined;
  if (server instanceof HttpServer) handoff = new Handoff(server, plan, { routes: () => [], disable });
  else disable('TLS is not supported; files are served in JavaScript');

  const handlers = new Map<string, StaticHandler>();
  const { cache } = plan;
  for (const { root: _, roots, prefix, delegate, ...mount } of plan.mounts) {
    if (delegate === true) continue;
    const hasHeaders = Object.keys(plan.headers).length > 0;
    handlers.set(
      prefix,
      createStaticHandler(roots, {
        ...mount,
        cache: cache ?? false,
        ...(hasHeaders ? { setHeaders: (response) => response.setHeaders(new Map(Object.entries(plan.headers))) } : {}),
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
    const isRead = request.method === 'GET' || request.method === 'HEAD';
    if (!isRead || handler === undefined) return next();
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
  return { stats: () => (disabled || handoff === undefined ? null : handoff.stats()) };
}

type Serve = (request: IncomingMessage, response: ServerResponse, next: () => void) => void;

/** Calls `serve` for requests before all listeners of `request`. */
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
