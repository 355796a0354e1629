/**
 * Lets a client that half-closes its connection receive the responses it has asked for.
 *
 * An `http.Server` ends the socket as soon as the client's FIN arrives (`socketOnEnd` in Node's `_http_server.js`), unless
 * `httpAllowHalfOpen` is set: then it closes after the last response. While the response in turn is a file, that option is
 * set for the one event. When a response comes in turn that the application has not finished, the socket is ended, as Node
 * would have ended it at the FIN: a FIN may also mean that the client is gone, and only a file is certain to come to an end.
 *
 * Nothing else that ends or destroys the socket is held back.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

import { allowHalfOpen, isPlainSocket, responseInTurn } from '../node/node-internals.js';

/**
 * Milliseconds that a half-closed connection is kept for a file that is still being looked up. A disk or a callback that
 * hangs must not keep the connection of a client that has gone.
 */
const LOOKUP_TIMEOUT = 5000;

/** What keeps a response's connection half-open. */
interface Claims {
  lookups: number;
  transfers: number;
}

const claims = new WeakMap<ServerResponse, Claims>();
/** Sockets whose 'end' event is watched; true once the client has half-closed. */
const watched = new WeakMap<Socket, boolean>();
/** Sockets that end with the files in turn on them, and what looks whether there are any. */
const finishing = new WeakMap<Socket, () => void>();

/**
 * Keeps the connection of `res` half-open until the returned function is called (once; later calls do nothing): while its
 * file is looked up, for five seconds after the FIN at most, or until its bytes have been sent.
 */
export function keepHalfOpen(res: ServerResponse, phase: keyof Claims): () => void {
  // What others put in the place of a response need not have a request.
  const socket = (res.req as IncomingMessage | undefined)?.socket;
  if (!isPlainSocket(socket)) return () => {};
  watchEnd(socket);
  const claim = claims.get(res) ?? { lookups: 0, transfers: 0 };
  claims.set(res, claim);
  claim[phase] += 1;
  let held = true;
  return () => {
    if (!held) return;
    held = false;
    claim[phase] -= 1;
    // The caller may be about to end the response, or to hand it to the application.
    if (isClaimed(res)) return;
    if (watched.get(socket) === true) queueMicrotask(() => proceed(socket));
    if (finishing.has(socket)) queueMicrotask(() => finishing.get(socket)?.());
  };
}

/** Keeps the socket half-open for as long as files are in turn on it. */
export function watchEnd(socket: Socket): void {
  if (watched.has(socket)) return;
  watched.set(socket, false);
  let restore: (() => void) | undefined;
  socket.prependListener('end', () => {
    if (!isCertainToEnd(responseInTurn(socket))) return;
    restore = allowHalfOpen(socket);
    if (restore === undefined) return;
    // A listener that throws must not leave the option set.
    queueMicrotask(restore);
    watched.set(socket, true);
  });
  socket.on('end', () => {
    if (restore === undefined) return;
    restore();
    proceed(socket);
  });
}

/** True while the response in turn is a file, or has been finished and is on its way. */
export function isFileInTurn(socket: Socket): boolean {
  return isCertainToEnd(responseInTurn(socket));
}

/** Calls `finished` once, when no file is in turn any more on the socket, unless that is destroyed before. */
export function finishFiles(socket: Socket, finished: () => void): void {
  const seen = new WeakSet<ServerResponse>();
  const finish = () => {
    if (finishing.delete(socket) && !socket.destroyed) finished();
  };
  const check = () => {
    const response = responseInTurn(socket);
    if (response === undefined || !isCertainToEnd(response)) {
      finish();
      return;
    }
    if (seen.has(response)) return;
    seen.add(response);
    const timer = setTimeout(() => {
      if (isOnlyLookedUp(response)) finish();
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

/** After the client's FIN: waits for the response in turn if it is certain to end, and otherwise ends the socket. */
function proceed(socket: Socket): void {
  const response = responseInTurn(socket);
  if (response === undefined || socket.destroyed) return;
  if (!isCertainToEnd(response)) {
    socket.end();
    return;
  }
  if (waitedFor.has(response)) return;
  waitedFor.add(response);
  const timer = setTimeout(() => {
    if (isOnlyLookedUp(response)) socket.end();
  }, LOOKUP_TIMEOUT);
  timer.unref();
  response.once('close', () => {
    clearTimeout(timer);
    proceed(socket);
  });
}

const waitedFor = new WeakSet<ServerResponse>();

function isCertainToEnd(response: ServerResponse | undefined): boolean {
  return response !== undefined && (isClaimed(response) || response.writableEnded);
}

function isOnlyLookedUp(response: ServerResponse): boolean {
  const claim = claims.get(response);
  return claim !== undefined && claim.lookups > 0 && claim.transfers === 0;
}

function isClaimed(response: ServerResponse): boolean {
  const claim = claims.get(response);
  return claim !== undefined && claim.lookups + claim.transfers > 0;
}
