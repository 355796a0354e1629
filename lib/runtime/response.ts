/**
 * Sends the body of a Node response without Node's stream: one native call on the JavaScript thread sends head and file.
 *
 * The head is the one that Node has written, so `Date`, keep-alive and the order of pipelined responses are correct. The
 * response ends as with a stream: `finish`, `close` and `server.close()` behave the same.
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

/** Maximum number of bytes in one turn. */
const CHUNK = 512 * 1024;
/** Bytes of a body that usually fit into the receive window of a client: larger ones may be in transit when the connection ends. */
const USUAL_WINDOW = 16 * 1024;

/**
 * Called once: before the response ends, or with the error that ended it. `method` is the method that sent the bytes; absent
 * when no byte was sent.
 */
export type Done = (error: ZerosendError | undefined, method?: TransferReport['method']) => void;

let methods: ReturnType<ReturnType<typeof requireNative>['methodNames']> | undefined;

/**
 * Sends `length` bytes of `transfer`, a handle or the number of the pending response (see `nextPending`), as the body
 * of `res`, and ends it. The transfer is released at the end.
 *
 * Returns false when the bytes have to be written to the stream of the response (TLS, HTTP/2, `inject()`, chunked, no body,
 * methods of the response that were replaced, another platform than Linux). The head may have been written then; `done` is not
 * called.
 */
export function sendBody(res: ServerResponse, transfer: number, length: number, done: Done): boolean {
  if (!IS_LINUX || !isPlainResponse(res)) return false;
  const head = takeHead(res, length);
  if (head === undefined) return false;
  if (res.socket === null) {
    waitForTurn(res, keepPending(transfer), length, head, done);
  } else {
    start(res, transfer, length, head, done);
  }
  return true;
}

/** Starts when the response has a socket: a pipelined response gets it after the responses before it. */
function waitForTurn(res: ServerResponse, transfer: number, length: number, head: string, done: Done): void {
  const { socket } = res.req;
  watchEnd(socket);
  const onSocket = () => {
    unwatch();
    start(res, transfer, length, head, done);
  };
  const unwatch = onceClosed(socket, () => {
    res.removeListener('socket', onSocket);
    engine().release(transfer);
    res.destroy();
    done(failure('ERR_ZEROSEND_CLOSED', 'the socket was closed before the response could start'));
  });
  res.once('socket', onSocket);
}

function start(res: ServerResponse, transfer: number, length: number, head: string, done: Done): void {
  const socket = res.socket;
  if (socket === null || socket.destroyed || res.destroyed || !isPlainSocket(socket)) {
    engine().release(transfer);
    res.destroy();
    done(failure('ERR_ZEROSEND_CLOSED', 'the socket was closed before the response was sent'));
    return;
  }
  let turn: number | undefined;
  try {
    if (transfer < 0 && !hasQueuedBytes(socket)) {
      const started = engine().startPending(transfer, descriptor(socket), head, CHUNK);
      if (started < 0) {
        methods ??= requireNative().methodNames();
        if (length > USUAL_WINDOW || isLast(res)) lingerOnClose(socket);
        done(undefined, methods[-1 - started] as TransferReport['method']);
        res.end();
        return;
      }
      // The handle and the turn in one number: see `startPending`.
      turn = started % 4;
      transfer = (started - turn) / 4;
      spend(CHUNK);
    } else {
      transfer = keepPending(transfer);
      engine().setHead(transfer, head);
    }
  } catch (error) {
    engine().release(transfer);
    // The client must not take later writes for a part of the response.
    interceptWrites(socket);
    resetSocket(socket, () => done(error as ZerosendError));
    return;
  }
  lingerOnClose(socket);
  const release = interceptWrites(socket);
  const endClaim = keepHalfOpen(res, 'transfers');
  const pump = new Pump(socket, transfer, {
    chunk: CHUNK,
    done: (error, report) => {
      if (error === undefined) {
        release();
        done(undefined, report.method);
        res.end();
      } else {
        // The response is incomplete: only a reset shows that to the client. Writes stay intercepted until then.
        resetSocket(socket, () => done(error, report.method));
      }
      endClaim();
    },
  });
  if (turn === undefined) pump.start();
  else pump.resume(turn);
}
