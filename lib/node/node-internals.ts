/**
 * Every internal of Node that zerosend leans on, in one place.
 *
 * Used: `socket._handle` (`fd`, `writeQueueSize`, `reset()`; for reading see `socket-reading.ts`), the name of `writeAfterFIN`,
 * `socket.parser`, `socket._httpMessage`,
 * `socket.server`, `server.httpAllowHalfOpen`, `res._header`, `res._headerSent`, `res._last`, `res._hasBody`, `res._contentLength`,
 * `res.chunkedEncoding`, `res.outputData`, `res._implicitHeader()`. Their shape is checked once, when this module is
 * loaded, and each object again before it is used; where it is not what is expected, the ordinary stream road is taken.
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

/** The open descriptor of a plain TCP or Unix socket, or -1. Good for the synchronous call it is passed to, no longer. */
export function descriptor(socket: Socket): number {
  const handle = (socket as SocketInternals)._handle;
  return typeof handle?.fd === 'number' ? handle.fd : -1;
}

/**
 * True for a `net.Socket` itself: no TLS, no subclass, no wrapper, with nothing put in place of `write`. What HTTP/2 has for
 * a socket is a proxy that throws when its `write` is only looked at.
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
 * True when Node has replaced `write` because the peer has half-closed and `allowHalfOpen` is false. The socket can still be
 * written to until Node ends it, which it does after the `end` event.
 */
function refusesWrites(socket: Socket): boolean {
  return socket.readableEnded && !socket.allowHalfOpen && socket.write.name === 'writeAfterFIN';
}

/** True for the socket of an HTTP connection, client's or server's, whose bytes Node's parser takes. */
export function hasParser(socket: Socket): boolean {
  return Boolean((socket as { parser?: unknown }).parser);
}

/** The response whose bytes go out on a server's socket now; those behind it in a pipeline are in turn after it. */
export function responseInTurn(socket: Socket): ServerResponse | undefined {
  return (socket as unknown as { _httpMessage?: ServerResponse | null })._httpMessage ?? undefined;
}

/**
 * Has the socket's server answer what was asked before it closes, when the client has half-closed, until the returned
 * function is called. `undefined`: it has no server, or does so anyway.
 */
export function allowHalfOpen(socket: Socket): (() => void) | undefined {
  const { server } = socket as unknown as { server?: { httpAllowHalfOpen?: boolean } | null };
  if (server?.httpAllowHalfOpen !== false) return undefined;
  server.httpAllowHalfOpen = true;
  return () => {
    server.httpAllowHalfOpen = false;
  };
}

/** True for a TCP socket that `resetAndDestroy()` takes: libuv refuses one that is being shut down. */
export function canBeReset(socket: Socket): boolean {
  const handle = (socket as SocketInternals)._handle;
  return typeof handle?.reset === 'function' && !socket.writableEnded;
}

/** True for a response after which Node closes the connection; known when its head has been made. */
export function isLast(res: ServerResponse): boolean {
  return (res as unknown as { _last?: boolean })._last === true;
}

/** True while Node or libuv still has bytes for this socket. */
export function hasQueuedBytes(socket: Socket): boolean {
  if (socket.writableLength > 0) return true;
  const handle = (socket as SocketInternals)._handle;
  return handle?.writeQueueSize !== 0;
}

/** True for a response whose body may bypass Node's stream: plain, over HTTP/1, nobody has replaced its methods. */
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
 * The head block of a response that has been written but not sent, with the promise that the caller sends it: from here
 * on Node takes it for sent. `undefined` when the body cannot follow it as it is (chunked, none, of another length).
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
