/**
 * Sends files to clients that have half-closed their connection.
 *
 * An `http.Server` ends the socket as soon as the client's FIN arrives (`socketOnEnd` in Node's `_http_server.js`), unless
 * `httpAllowHalfOpen` is set: then it closes after the last response. This module sets the option during the event if the current
 * response of the pipeline is a file. If the next response is one that the application has not finished, the socket is ended, as
 * Node does at the FIN: the client may be gone, and only responses with a file are certain to finish.
 *
 * Everything else that ends or destroys the socket takes effect as usual.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

import { allowHalfOpen, currentResponse, isPlainSocket } from '../node/node-internals.js';

/**
 * Milliseconds for which a half-closed connection is kept open while a file is being looked up: a hanging disk or callback must not
 * keep the connection of a disconnected client.
 */
const LOOKUP_TIMEOUT = 5000;

/** The number of reasons for which the connection of a response is kept half-open. */
interface Claims {
  lookups: number;
  transfers: number;
}

const claims = new WeakMap<ServerResponse, Claims>();
/** Sockets with a listener for 'end'; true after the client has half-closed. */
const watched = new WeakMap<Socket, boolean>();
/** Sockets that are closed after the files in their pipeline, with the function that checks for them. */
const finishing = new WeakMap<Socket, () => void>();

/**
 * Keeps the connection of `res` half-open until the returned function is called: while its file is looked up (at most
 * `LOOKUP_TIMEOUT` after the FIN), or while its bytes are sent. Repeated calls of the function do nothing.
 */
export function keepHalfOpen(res: ServerResponse, phase: keyof Claims): () => void {
  // `res` may be an object of the application without a request.
  const socket = (res.req as IncomingMessage | undefined)?.socket;
  if (!isPlainSocket(socket)) return () => {};
  watchEnd(socket);
  const claim = claims.get(res) ?? { lookups: 0, transfers: 0 };
  claims.set(res, claim);
  claim[phase] += 1;
  let active = true;
  return () => {
    if (!active) return;
    active = false;
    claim[phase] -= 1;
    // Deferred: the caller may be about to end the response, or to pass it to the application.
    if (isClaimed(res)) return;
    if (watched.get(socket) === true) queueMicrotask(() => proceed(socket));
    if (finishing.has(socket)) queueMicrotask(() => finishing.get(socket)?.());
  };
}

/** Keeps the socket half-open while the current response of its pipeline is a file. */
export function watchEnd(socket: Socket): void {
  if (watched.has(socket)) return;
  watched.set(socket, false);
  let restore: (() => void) | undefined;
  socket.prependListener('end', () => {
    if (!isCertainToFinish(currentResponse(socket))) return;
    restore = allowHalfOpen(socket);
    if (restore === undefined) return;
    // In case another listener throws.
    queueMicrotask(restore);
    watched.set(socket, true);
  });
  socket.on('end', () => {
    if (restore === undefined) return;
    restore();
    proceed(socket);
  });
}

/** Whether the current response of the pipeline is a file, or was finished by the application. */
export function isFileCurrent(socket: Socket): boolean {
  return isCertainToFinish(currentResponse(socket));
}

/** Calls `finished` once, after the files at the head of the pipeline were sent, unless the socket is destroyed before. */
export function afterFiles(socket: Socket, finished: () => void): void {
  const seen = new WeakSet<ServerResponse>();
  const finish = () => {
    if (finishing.delete(socket) && !socket.destroyed) finished();
  };
  const check = () => {
    const response = currentResponse(socket);
    if (response === undefined || !isCertainToFinish(response)) {
      finish();
      return;
    }
    if (seen.has(response)) return;
    seen.add(response);
    const timer = setTimeout(() => {
      if (isOnlyBeingLookedUp(response)) finish();
    }, LOOKUP_TIMEOUT);
    timer.unref();
    response.once('close', () => {
      clearTimeout(timer);
      if (finishing.has(socket)) check();
    });
  };
  finishing.set(socket, check);
  check();
}

/** After the client's FIN: waits for the current response if it is certain to finish, and ends the socket otherwise. */
function proceed(socket: Socket): void {
  const response = currentResponse(socket);
  if (response === undefined || socket.destroyed) return;
  if (!isCertainToFinish(response)) {
    socket.end();
    return;
  }
  if (awaited.has(response)) return;
  awaited.add(response);
  const timer = setTimeout(() => {
    if (isOnlyBeingLookedUp(response)) socket.end();
  }, LOOKUP_TIMEOUT);
  timer.unref();
  response.once('close', () => {
    clearTimeout(timer);
    proceed(socket);
  });
}

const awaited = new WeakSet<ServerResponse>();

function isCertainToFinish(response: ServerResponse | undefined): boolean {
  return response !== undefined && (isClaimed(response) || response.writableEnded);
}

function isOnlyBeingLookedUp(response: ServerResponse): boolean {
  const claim = claims.get(response);
  return claim !== undefined && claim.lookups > 0 && claim.transfers === 0;
}

function isClaimed(response: ServerResponse): boolean {
  const claim = claims.get(response);
  return claim !== undefined && claim.lookups + claim.transfers > 0;
}
