/**
 * Every internal of Fastify that the plugin leans on: whether an `onSend` hook or a trailer stands between a reply and
 * the wire, the reply's own headers, which error handler is next, and the hooks of an instance. They are found by the names of their symbols; where one
 * is not found, the reply is sent as a stream, which needs none of them.
 */
import type { FastifyInstance, FastifyReply } from 'fastify';

interface Symbols {
  context: symbol;
  headers: symbol;
  trailers: symbol;
}

type Internals = Record<symbol, unknown>;

let symbols: Symbols | null | undefined;

/**
 * The headers set on a reply so far, to be completed in place, when nothing stands between it and `reply.raw`: no
 * `onSend` hook, no trailer, not hijacked. Else `undefined`.
 */
export function unobstructedHeaders(reply: FastifyReply): Record<string, unknown> | undefined {
  if (symbols === undefined) symbols = find(reply);
  if (symbols === null) return undefined;
  const internals = reply as unknown as Internals;
  const context = (reply.request as unknown as Internals)[symbols.context] as { onSend?: unknown } | undefined;
  if (context?.onSend !== null || internals[symbols.trailers] !== null || reply.sent) return undefined;
  return internals[symbols.headers] as Record<string, unknown>;
}

/**
 * When the route's own error handler calls `handler`, that of its instance: an error of `handler` itself goes to the handler
 * after it, as on a route that has none, and not to `handler` once more.
 */
export function passErrorsBeyond(reply: FastifyReply, handler: unknown): void {
  const symbol = named(reply, 'fastify.reply.nextErrorHandler');
  if (symbol === undefined) return;
  const internals = reply as unknown as Internals;
  const next = internals[symbol] as { func?: unknown } | null | undefined;
  if (typeof next === 'object' && next?.func === handler) internals[symbol] = Object.getPrototypeOf(next);
}

/** The hooks of an instance by their names, as far as they can be seen. */
export function hooksOf(instance: FastifyInstance): Record<string, unknown[]> {
  const symbol = named(instance, 'fastify.hooks');
  return symbol === undefined ? {} : ((instance as unknown as Internals)[symbol] as Record<string, unknown[]>);
}

function find(reply: FastifyReply): Symbols | null {
  const context = named(reply.request, 'fastify.context');
  const headers = named(reply, 'fastify.reply.headers');
  const trailers = named(reply, 'fastify.reply.trailers');
  if (context === undefined || headers === undefined || trailers === undefined) return null;
  const route = (reply.request as unknown as Internals)[context] as Record<string, unknown> | undefined;
  const bag = (reply as unknown as Internals)[headers];
  return route !== undefined && 'onSend' in route && typeof bag === 'object' && bag !== null
    ? { context, headers, trailers }
    : null;
}

function named(object: object, description: string): symbol | undefined {
  for (let holder: object | null = object; holder !== null; holder = Object.getPrototypeOf(holder)) {
    const symbol = Object.getOwnPropertySymbols(holder).find((candidate) => candidate.description === description);
    if (symbol !== undefined) return symbol;
  }
  return undefined;
}
