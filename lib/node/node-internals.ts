/**
 * Internals of Node's sockets and responses.
 *
 * Used: `socket._handle` (`fd`, `writeQueueSize`, `reset()`), `socket.parser`, `socket._httpMessage`, `socket.server`,
 * `server.httpAllowHalfOpen`, `res._header`, `res._headerSent`, `res._last`, `res._hasBody`, `res._contentLength`,
 * `res.chunkedEncoding`, `res.outputData`, `res._implicitHeader()`, and the names of the functions
 * `writeAfterFIN`, `socketOnError`, `socketOnData` and `socketOnEnd`. They are
 * checked when this module is loaded, and for each object before use. If a check fails, the response is sent as a stream.
 */
import { type IncomingMessage, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import { types } from 'node:util';

import { isIntercepted } from './intercept-writes.js';

interface Handle {
  readonly fd: number;
  readonly writeQueueSize: number;
  reset(callback: () => void): number;
}

interface SocketInternals {
  _handle?: Partial<Handle> | null;
}

interface ResponseInternals {
  _header: string | null;
  _headerSent: boolean;
  _hasBody: boolean;
  _contentLength: number | null;
  chunkedEncoding: boolean;
  outputData: unknown[];
  strictContentLength?: boolean;
  _implicitHeader(): void;
}

const internals = (res: ServerResponse): ResponseInternals => res as unknown as ResponseInternals;

/** The descriptor of a plain TCP or Unix socket, or -1 if it has none. Must be used synchronously: Node may close it later. */
export function descriptor(socket: Socket): number {
  const handle = (socket as SocketInternals)._handle;
  return typeof handle?.fd === 'number' ? handle.fd : -1;
}

/**
 * Whether this is a `net.Socket`: not TLS, not a subclass or wrapper, and `write` is not replaced. The socket of an HTTP/2
 * response is a proxy whose property `write` throws.
 */
export function isPlainSocket(socket: unknown): socket is Socket {
  return (
    socket instanceof Socket &&
    !types.isProxy(socket) &&
    Object.getPrototypeOf(socket) === Socket.prototype &&
    (socket.write === Socket.prototype.write || isIntercepted(socket) || refusesWrites(socket))
  );
}

/**
 * Whether Node has replaced `write` because the peer has half-closed and `allowHalfOpen` is false. The socket is still writable
 * until Node ends it after the `end` event.
 */
function refusesWrites(socket: Socket): boolean {
  return socket.readableEnded && !socket.allowHalfOpen && socket.write.name === 'writeAfterFIN';
}

/** Whether the bytes of the socket go to Node's HTTP parser, of a client or a server. */
export function hasParser(socket: Socket): boolean {
  return Boolean((socket as { parser?: unknown }).parser);
}

/** Whether this is the error listener that Node's server removes before it emits `clientError`. */
export function isParserErrorListener(event: string, listener: () => void): boolean {
  return event === 'error' && listener.name === 'socketOnError';
}

/** Removes the listeners that pass the bytes of a server's socket to Node's parser. */
export function detachParser(socket: Socket): void {
  for (const [event, name] of [
    ['data', 'bound socketOnData'],
    ['end', 'bound socketOnEnd'],
  ] as const) {
    for (const listener of socket.listeners(event)) {
      if (listener.name === name) socket.removeListener(event, listener as () => void);
    }
  }
}

/** The response that is being sent on a server's socket: the first one of a pipeline. */
export function currentResponse(socket: Socket): ServerResponse | undefined {
  return (socket as unknown as { _httpMessage?: ServerResponse | null })._httpMessage ?? undefined;
}

/**
 * Sets `httpAllowHalfOpen` of the socket's server until the returned function is called. `undefined` if the option is set
 * already, or the socket has no server.
 */
export function allowHalfOpen(socket: Socket): (() => void) | undefined {
  const { server } = socket as unknown as { server?: { httpAllowHalfOpen?: boolean } | null };
  if (server?.httpAllowHalfOpen !== false) return undefined;
  server.httpAllowHalfOpen = true;
  return () => {
    server.httpAllowHalfOpen = false;
  };
}

/** Whether `resetAndDestroy()` works: for TCP only, and libuv refuses it during a shutdown. */
export function canBeReset(socket: Socket): boolean {
  const handle = (socket as SocketInternals)._handle;
  return typeof handle?.reset === 'function' && !socket.writableEnded;
}

/** Whether Node closes the connection after the response. Known after the head was made. */
export function isLast(res: ServerResponse): boolean {
  return (res as unknown as { _last?: boolean })._last === true;
}

/** Whether Node or libuv has queued bytes for the socket. */
export function hasQueuedBytes(socket: Socket): boolean {
  if (socket.writableLength > 0) return true;
  const handle = (socket as SocketInternals)._handle;
  return handle?.writeQueueSize !== 0;
}

/** Whether the body can bypass Node's stream: HTTP/1 on a plain socket, and `write` and `end` are not replaced. */
export function isPlainResponse(res: unknown): res is ServerResponse<IncomingMessage> {
  return (
    shapeIsKnown &&
    res instanceof ServerResponse &&
    res.write === ServerResponse.prototype.write &&
    res.end === ServerResponse.prototype.end &&
    isPlainSocket(res.req.socket)
  );
}

/**
 * Takes the head of a response that was written but not sent; the caller must send it, because Node regards it as sent.
 * `undefined` if a body of `length` bytes cannot follow the head (chunked, no body, another length).
 */
export function takeHead(res: ServerResponse, length: number): string | undefined {
  const response = internals(res);
  if (response._header === null) response._implicitHeader();
  if (
    typeof response._header !== 'string' ||
    response._headerSent ||
    !response._hasBody ||
    response.chunkedEncoding ||
    response._contentLength !== length ||
    response.outputData.length > 0 ||
    response.strictContentLength === true
  ) {
    return undefined;
  }
  response._headerSent = true;
  return response._header;
}

const shapeIsKnown: boolean = (() => {
  try {
    const request = { method: 'GET', httpVersionMajor: 1, httpVersionMinor: 1, headers: {} } as IncomingMessage;
    const res = new ServerResponse(request);
    res.writeHead(200, { 'Content-Length': '3' });
    const response = internals(res);
    return (
      typeof response._header === 'string' &&
      response._header.startsWith('HTTP/1.1 200 OK\r\n') &&
      response._header.endsWith('\r\n\r\n') &&
      response._headerSent === false &&
      response._hasBody === true &&
      response._contentLength === 3 &&
      response.chunkedEncoding === false &&
      Array.isArray(response.outputData) &&
      typeof response._implicitHeader === 'function'
    );
  } catch {
    return false;
  }
})();
