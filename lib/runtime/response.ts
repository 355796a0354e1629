/**
 * The body of a Node response, past Node's stream: head and file leave by one native call, on the JavaScript thread.
 *
 * Node's own head block is used, so its Date, its keep-alive and its order of pipelined responses stay right, and the
 * response ends as if it had been written: `finish`, `close` and `server.close()` behave as with a stream.
 */
import type { ServerResponse } from 'node:http';
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

/** Bytes sent at once when a response starts, and in each turn after. */
const CHUNK = 512 * 1024;
/** Bytes of a body that a client's window holds as a rule: what is larger may be on its way when the connection ends. */
const SURELY_SENT = 16 * 1024;

/**
 * Called once, when all is sent (before the response ends) or nothing more will be, with the method that moved the bytes
 * if any were.
 */
export type Done = (error: ZerosendError | undefined, method?: TransferReport['method']) => void;

let methods: ReturnType<ReturnType<typeof requireNative>['methodNames']> | undefined;

/**
 * Sends `length` bytes of the transfer `token`, a handle or the number of the pending response (see `nextPending`), as the body
 * of `res`, and ends it. The transfer is released at the end.
 *
 * False when these bytes must take the ordinary road (TLS, HTTP/2, `inject()`, chunked, no body, methods that somebody
 * has replaced, another platform than Linux): nothing has happened then, but that the head may have been written.
 */
export function sendBody(res: ServerResponse, token: number, length: number, done: Done): boolean {
  if (!IS_LINUX || !isPlainResponse(res)) return false;
  const head = takeHead(res, length);
  if (head === undefined) return false;
  if (res.socket === null) {
    waitForTurn(res, keepPending(token), length, head, done);
  } else {
    start(res, token, length, head, done);
  }
  return true;
}

/** A pipelined response has no socket until those before it are out. */
function waitForTurn(res: ServerResponse, token: number, length: number, head: string, done: Done): void {
  const { socket } = res.req;
  watchEnd(socket);
  const onSocket = () => {
    unwatch();
    start(res, token, length, head, done);
  };
  const unwatch = onceClosed(socket, () => {
    res.removeListener('socket', onSocket);
    engine().release(token);
    res.destroy();
    done(failure('ERR_ZEROSEND_CLOSED', 'the socket was closed before the response had its turn'));
  });
  res.once('socket', onSocket);
}

function start(res: ServerResponse, token: number, length: number, head: string, done: Done): void {
  const socket = res.socket;
  if (socket === null || socket.destroyed || res.destroyed || !isPlainSocket(socket)) {
    engine().release(token);
    res.destroy();
    done(failure('ERR_ZEROSEND_CLOSED', 'the socket was closed before the response was sent'));
    return;
  }
  let turn: number | undefined;
  try {
    if (token < 0 && !hasQueuedBytes(socket)) {
      const started = engine().startPending(token, descriptor(socket), head, CHUNK);
      if (started < 0) {
        methods ??= requireNative().methodNames();
        if (length > SURELY_SENT || isLast(res)) lingerOnClose(socket);
        done(undefined, methods[-1 - started] as TransferReport['method']);
        res.end();
        return;
      }
      // The handle and the turn in one number: see `startPending`.
      turn = started % 4;
      token = (started - turn) / 4;
      spend(CHUNK);
    } else {
      token = keepPending(token);
      engine().setHead(token, head);
    }
  } catch (error) {
    engine().release(token);
    // Nothing else may be written to it.
    interceptWrites(socket);
    resetSocket(socket, () => done(error as ZerosendError));
    return;
  }
  lingerOnClose(socket);
  const release = interceptWrites(socket);
  const endClaim = keepHalfOpen(res, 'transfers');
  const pump = new Pump(socket, token, {
    chunk: CHUNK,
    done: (error, report) => {
      if (error === undefined) {
        release();
        done(undefined, report.method);
        res.end();
      } else {
        // The client has a part of what was announced: only the end of the connection tells it so, and nothing
        // else may be written before that.
        resetSocket(socket, () => done(error, report.method));
      }
      endClaim();
    },
  });
  if (turn === undefined) pump.start();
  else pump.resume(turn);
}
