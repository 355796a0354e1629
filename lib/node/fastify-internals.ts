/**
 * Internals of Fastify: whether a reply has `onSend` hooks or trailers, its headers, the next error handler, and the hooks of an
 * instance. They are properties with symbols, found by the descriptions of the symbols. If one is not found, the reply is sent as
 * a stream, which needs none of them.
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
 * The headers of a reply, which may be modified, if the reply can be written to `reply.raw` directly: without `onSend` hooks,
 * without trailers, not hijacked. Otherwise `undefined`.
 */
export function directHeaders(reply: FastifyReply): Record<string, unknown> | undefined {
  if (symbols === undefined) symbols = find(reply);
  if (symbols === null) return undefined;
  const internals = reply as unknown as Internals;
  const context = (reply.request as unknown as Internals)[symbols.context] as { onSend?: unknown } | undefined;
  if (context?.onSend !== null || internals[symbols.trailers] !== null || reply.sent) return undefined;
  return internals[symbols.headers] as Record<string, unknown>;
}

/**
 * To be called before the error handler of a route calls `handler`, the one of its instance: an error thrown by `handler` then
 * goes to the handler of the parent instance instead of `handler` again.
 */
export function skipErrorHandler(reply: FastifyReply, handler: unknown): void {
  const symbol = findSymbol(reply, 'fastify.reply.nextErrorHandler');
  if (symbol === undefined) return;
  const internals = reply as unknown as Internals;
  const next = internals[symbol] as { func?: unknown } | null | undefined;
  if (typeof next === 'object' && next?.func === handler) internals[symbol] = Object.getPrototypeOf(next);
}

/** The hooks of an instance by name; empty if they are not found. */
export function hooksOf(instance: FastifyInstance): Record<string, unknown[]> {
  const symbol = findSymbol(instance, 'fastify.hooks');
  return symbol === undefined ? {} : ((instance as unknown as Internals)[symbol] as Record<string, unknown[]>);
}

function find(reply: FastifyReply): Symbols | null {
  const context = findSymbol(reply.request, 'fastify.context');
  const headers = findSymbol(reply, 'fastify.reply.headers');
  const trailers = findSymbol(reply, 'fastify.reply.trailers');
  if (context === undefined || headers === undefined || trailers === undefined) return null;
  const route = (reply.request as unknown as Internals)[context] as Record<string, unknown> | undefined;
  const bag = (reply as unknown as Internals)[headers];
  return route !== undefined && 'onSend' in route && typeof bag === 'object' && bag !== null
    ? { context, headers, trailers }
    : null;
}

function findSymbol(object: object, description: string): symbol | undefined {
  for (let holder: object | null = object; holder !== null; holder = Object.getPrototypeOf(holder)) {
    const symbol = Object.getOwnPropertySymbols(holder).find((candidate) => candidate.description === description);
    if (symbol !== undefined) return symbol;
  }
  return undefined;
}
