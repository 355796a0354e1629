/**
 * Sends the body of a Node response without Node's streams: head and file with one native call on the JavaScript thread.
 *
 * The head is made by Node, so `Date`, keep-alive and the order of pipelined responses are those of Node. The response ends as
 * if the body had been written: `finish`, `close` and `server.close()` work as with a stream.
 */
import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

import type { TransferReport } from '#native';
import { interceptWrites } from '../node/intercept-writes.js';
import {
  descriptor,
  hasQueuedBytes,
  isLast,
  isPlainResponse,
  isPlainSocket,
  takeHead,
} from '../node/node-internals.js';
import { failure, type ZerosendError } from '../util/errors.js';
import { resetSocket } from './abort.js';
import { engine, keepPending } from './engine.js';
import { keepHalfOpen, watchEnd } from './half-open.js';
import { lingerOnClose } from './linger.js';
import { requireNative } from './native.js';
import { IS_LINUX } from './platform.js';
import { Pump } from './pump.js';
import { spend } from './send-budget.js';
import { onceClosed } from './socket-close.js';

/** Maximum number of bytes sent at the start of a response, and in each turn after that. */
const CHUNK_SIZE = 512 * 1024;
/** Bodies up to this size usually fit into the client's receive window; larger ones may be unacknowledged when the connection ends. */
const WINDOW_SIZE = 16 * 1024;

/**
 * Called once: when all bytes were sent, before the response ends, or when sending has failed. `method` is the method that sent
 * bytes, if any were sent.
 */
export type Done = (error: ZerosendError | undefined, method?: TransferReport['method']) => void;

let methods: ReturnType<ReturnType<typeof requireNative>['methodNames']> | undefined;

/**
 * Sends `length` bytes of a transfer as the body of `res`, and ends the response. `transfer` is a handle, or the number of the
 * pending response (see `nextPending`); it is released at the end.
 *
 * Returns false if the bytes must be sent as a stream (TLS, HTTP/2, `inject()`, a chunked response, no body, replaced methods,
 * another platform than Linux). Then nothing was sent, but the head may have been written to `res`.
 */
export function sendBody(res: ServerResponse, transfer: number, length: number, done: Done): boolean {
  return IS_LINUX && isPlainResponse(res) && sendPlainBody(res, transfer, length, done);
}

/** As {@link sendBody}, on Linux, for a response that `isPlainResponse` has accepted. */
export function sendPlainBody(res: ServerResponse, transfer: number, length: number, done: Done): boolean {
  const head = takeHead(res, length);
  if (head === undefined) return false;
  const { socket } = res;
  if (socket === null) waitForSocket(res, keepPending(transfer), length, head, done);
  else if (socket === res.req.socket || isPlainSocket(socket)) start(res, socket, transfer, length, head, done);
  else fail(res, transfer, done);
  return true;
}

/** Node assigns the socket to a pipelined response after the responses before it were sent. */
function waitForSocket(res: ServerResponse, transfer: number, length: number, head: string, done: Done): void {
  const { socket } = res.req;
  watchEnd(socket);
  const onSocket = () => {
    unwatch();
    if (isPlainSocket(res.socket)) start(res, res.socket, transfer, length, head, done);
    else fail(res, transfer, done);
  };
  const unwatch = onceClosed(socket, () => {
    res.removeListener('socket', onSocket);
    fail(res, transfer, done);
  });
  res.once('socket', onSocket);
}

function fail(res: ServerResponse, transfer: number, done: Done): void {
  engine().release(transfer);
  res.destroy();
  done(failure('ERR_ZEROSEND_CLOSED', 'the socket was closed before the response was sent'));
}

function start(res: ServerResponse, socket: Socket, transfer: number, length: number, head: string, done: Done): void {
  if (socket.destroyed || res.destroyed) {
    fail(res, transfer, done);
    return;
  }
  let turn: number | undefined;
  try {
    if (transfer < 0 && !hasQueuedBytes(socket)) {
      const started = engine().startPending(transfer, descriptor(socket), head, CHUNK_SIZE);
      if (started < 0) {
        methods ??= requireNative().methodNames();
        if (length > WINDOW_SIZE || isLast(res)) lingerOnClose(socket);
        done(undefined, methods[-1 - started] as TransferReport['method']);
        res.end();
        return;
      }
      // One number contains the handle and the result of the turn: see `startPending`.
      turn = started % 4;
      transfer = (started - turn) / 4;
      spend(CHUNK_SIZE);
    } else {
      transfer = keepPending(transfer);
      engine().setHead(transfer, head);
    }
  } catch (error) {
    engine().release(transfer);
    // Later writes to the socket must not be sent.
    interceptWrites(socket);
    resetSocket(socket, () => done(error as ZerosendError));
    return;
  }
  lingerOnClose(socket);
  const release = interceptWrites(socket);
  const releaseHalfOpen = keepHalfOpen(res, 'transfers');
  const pump = new Pump(socket, transfer, {
    chunk: CHUNK_SIZE,
    done: (error, report) => {
      if (error === undefined) {
        release();
        done(undefined, report.method);
        res.end();
      } else {
        // A reset tells the client that the body is incomplete. Writes stay deferred until then.
        resetSocket(socket, () => done(error, report.method));
      }
      releaseHalfOpen();
    },
  });
  if (turn === undefined) pump.start();
  else pump.resume(turn);
}
