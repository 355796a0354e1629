/**
 * Ends a response that is not whole, so that no receiver takes it for one that is: by a reset of the connection, or of the
 * stream of HTTP/2. TLS has no close_notify then.
 */
import type { ServerResponse } from 'node:http';
import { constants, type Http2ServerResponse } from 'node:http2';
import type { Socket } from 'node:net';

import { canBeReset, descriptor, hasQueuedBytes, isPlainSocket } from '../node/node-internals.js';
import { engine } from './engine.js';
import { IS_LINUX } from './platform.js';
import { reset } from './reset.js';
import { onceClosed } from './socket-close.js';

/** Milliseconds between two looks at what the client has received: at first, doubled up to the second. */
const FIRST_TICK = 5;
const LAST_TICK = 1000;
/** Milliseconds in which the client receives nothing: it is reset all the same. */
const MAX_STALL = 30_000;

/** Ends `response`, of which a part may have been sent. `ended` is called just before. */
export function abortResponse(response: ServerResponse | Http2ServerResponse, ended: () => void = () => {}): void {
  const { socket, stream } = response as ServerResponse & Partial<Pick<Http2ServerResponse, 'stream'>>;
  if (stream !== undefined) {
    ended();
    stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  } else if (isPlainSocket(socket)) {
    resetSocket(socket, ended);
  } else {
    ended();
    response.destroy();
  }
}

/**
 * Resets a connection once its client has what was sent, for a reset discards the rest, and there may be whole responses
 * among it. Unix sockets have no reset and are closed. `ended` is called just before.
 */
export function resetSocket(socket: Socket, ended: () => void = () => {}): void {
  let left = Number.POSITIVE_INFINITY;
  let stalled = performance.now();
  let tick = FIRST_TICK;
  let timer: NodeJS.Timeout | undefined;
  const unwatch = onceClosed(socket, () => {
    clearTimeout(timer);
    ended();
  });
  const look = () => {
    const now = performance.now();
    const unsent = bytesOnTheirWay(socket);
    if (unsent < left) {
      left = unsent;
      stalled = now;
    }
    if (unsent > 0 && now - stalled < MAX_STALL) {
      timer = setTimeout(look, tick);
      tick = Math.min(tick * 2, LAST_TICK);
      return;
    }
    unwatch();
    ended();
    if (IS_LINUX) reset(socket);
    else if (canBeReset(socket)) socket.resetAndDestroy();
    else socket.destroy();
  };
  look();
}

/** Bytes that Node or the kernel has and the client has not. */
function bytesOnTheirWay(socket: Socket): number {
  if (socket.destroyed) return 0;
  const queued = hasQueuedBytes(socket) ? Math.max(socket.writableLength, 1) : 0;
  return queued + (IS_LINUX ? engine().unacknowledged(descriptor(socket)) : 0);
}
