/**
 * Aborts an incomplete response so that no client mistakes it for a complete one: resets the connection, or the HTTP/2 stream.
 * A TLS connection is closed without close_notify.
 */
import type { ServerResponse } from 'node:http';
import { constants, type Http2ServerResponse } from 'node:http2';
import type { Socket } from 'node:net';

import { canBeReset, descriptor, hasQueuedBytes, isPlainSocket } from '../node/node-internals.js';
import { engine } from './engine.js';
import { IS_LINUX } from './platform.js';
import { reset } from './reset.js';
import { onceClosed } from './socket-close.js';

/** Milliseconds between two checks of the acknowledged bytes: doubled from the first value up to the second. */
const MIN_INTERVAL = 5;
const MAX_INTERVAL = 1000;
/** Milliseconds without an acknowledgement after which the connection is reset anyway. */
const MAX_STALL = 30_000;

/** Aborts a response of which a part may have been sent. Calls `onAbort` immediately before. */
export function abortResponse(response: ServerResponse | Http2ServerResponse, onAbort: () => void = () => {}): void {
  const { socket, stream } = response as ServerResponse & Partial<Pick<Http2ServerResponse, 'stream'>>;
  if (stream !== undefined) {
    onAbort();
    stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  } else if (isPlainSocket(socket)) {
    resetSocket(socket, onAbort);
  } else {
    onAbort();
    response.destroy();
  }
}

/**
 * Resets a connection after the client has acknowledged what was sent: a reset discards the rest, which may include complete
 * responses. Unix sockets are closed. Calls `onReset` immediately before.
 */
export function resetSocket(socket: Socket, onReset: () => void = () => {}): void {
  let remaining = Number.POSITIVE_INFINITY;
  let lastProgress = performance.now();
  let interval = MIN_INTERVAL;
  let timer: NodeJS.Timeout | undefined;
  const unwatch = onceClosed(socket, () => {
    clearTimeout(timer);
    onReset();
  });
  const poll = () => {
    const now = performance.now();
    const unacknowledged = unacknowledgedBytes(socket);
    if (unacknowledged < remaining) {
      remaining = unacknowledged;
      lastProgress = now;
    }
    if (unacknowledged > 0 && now - lastProgress < MAX_STALL) {
      timer = setTimeout(poll, interval);
      interval = Math.min(interval * 2, MAX_INTERVAL);
      return;
    }
    unwatch();
    onReset();
    if (IS_LINUX) reset(socket);
    else if (canBeReset(socket)) socket.resetAndDestroy();
    else socket.destroy();
  };
  poll();
}

/** Bytes that are queued in Node, or not yet acknowledged by the client. */
function unacknowledgedBytes(socket: Socket): number {
  if (socket.destroyed) return 0;
  const queued = hasQueuedBytes(socket) ? Math.max(socket.writableLength, 1) : 0;
  return queued + (IS_LINUX ? engine().unacknowledged(descriptor(socket)) : 0);
}
