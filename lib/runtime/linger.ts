/**
 * Lingering close for connections of an HTTP server, RFC 9112 section 9.6: complete responses must reach the client.
 *
 * If a client sends bytes that Node's parser rejects (a malformed request, bytes after `Connection: close`), Node destroys the
 * socket at once: files that are being looked up or sent are lost, and close(2) with unread bytes resets the connection, which
 * discards bytes that the client has not acknowledged. Instead, the files that are next in the pipeline are sent, the write side is
 * shut down, and received bytes are discarded until the client closes its side, within limits of bytes and time.
 *
 * All other calls of `destroy()` take effect at once: timeouts, `closeAllConnections()`, and calls of the application outside of a
 * `clientError` listener.
 */
import { Socket } from 'node:net';
import { interceptWrites, takeDeferredWrites } from '../node/intercept-writes.js';
import {
  descriptor,
  detachParser,
  hasParser,
  hasQueuedBytes,
  isParserErrorListener,
  isPlainSocket,
} from '../node/node-internals.js';
import { engine } from './engine.js';
import { afterFiles, isFileCurrent } from './half-open.js';
import { IS_LINUX } from './platform.js';
import { onceClosed } from './socket-close.js';

/** Milliseconds for the client to close its side after it has acknowledged everything. */
const LINGER_TIMEOUT = 2000;
/** Milliseconds without an acknowledgement after which the connection is closed anyway. */
const MAX_STALL = 30_000;
/** Milliseconds between two checks of the acknowledged bytes: doubled from the first value up to the second. */
const MIN_INTERVAL = 10;
const MAX_INTERVAL = 1000;
/** Maximum number of discarded bytes. Further bytes stay in the receive buffer, and TCP flow control stops the client. */
const MAX_DISCARDED = 16 * 1024 * 1024;

const intercepted = new WeakSet<Socket>();

/** Makes closing of `socket` linger from now on, if it is a plain socket of an HTTP server. */
export function lingerOnClose(socket: Socket | null | undefined): void {
  if (!isPlainSocket(socket) || !hasParser(socket) || intercepted.has(socket)) return;
  intercepted.add(socket);
  let discarding = false;
  let rejecting = false;
  /** Deferred writes of the application: its response to the rejected request. */
  const finalWrites: unknown[][] = [];
  // After a parser error, Node first removes this listener and then emits `clientError`. Node emits no 'removeListener' for the
  // only listener of a stream, so the method is replaced.
  const removeListener = (event: string, listener: () => void): Socket => {
    if (isParserErrorListener(event, listener)) {
      rejecting = true;
      // Writes of the `clientError` listener must follow the files that are still being looked up.
      const release = isFileCurrent(socket) ? interceptWrites(socket) : () => {};
      process.nextTick(() => {
        rejecting = false;
        if (discarding) finalWrites.push(...takeDeferredWrites(socket));
        release();
      });
    }
    return Socket.prototype.removeListener.call(socket, event, listener) as Socket;
  };
  const destroy = (error?: Error): Socket => {
    if (!(rejecting || isParserError(error)) || socket.destroyed || !hasUnsentBytes(socket)) {
      restore(socket);
      return socket.destroy(error);
    }
    if (!discarding) {
      discarding = true;
      discard(socket);
      finalWrites.push(...takeDeferredWrites(socket));
      afterFiles(socket, () => {
        for (const args of finalWrites) (socket.write as (...args: unknown[]) => boolean)(...args);
        linger(socket);
      });
    }
    return socket;
  };
  const destroySoon = (): void => {
    if (discarding) return;
    if (hasUnsentBytes(socket)) {
      discarding = true;
      discard(socket);
      linger(socket);
      return;
    }
    restore(socket);
    socket.destroySoon();
  };
  const methods = { destroy, destroySoon, removeListener };
  for (const name of INTERCEPTED)
    Object.defineProperty(socket, name, { value: methods[name], configurable: true, writable: true });
}

const INTERCEPTED = ['destroy', 'destroySoon', 'removeListener'] as const;

function restore(socket: Socket): void {
  for (const name of INTERCEPTED) delete (socket as Partial<Socket>)[name];
}

/** Whether this is an error of llhttp: malformed bytes, not a failed connection. */
function isParserError(error: Error | undefined): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code?.startsWith('HPE_') === true;
}

/** Whether a file is next in the pipeline, or the client has not acknowledged all bytes. */
function hasUnsentBytes(socket: Socket): boolean {
  return isFileCurrent(socket) || hasQueuedBytes(socket) || unacknowledged(socket) > 0;
}

/** Bytes in the kernel that the client has not acknowledged; 0 on other platforms than Linux. */
function unacknowledged(socket: Socket): number {
  const fd = IS_LINUX ? descriptor(socket) : -1;
  return fd < 0 ? 0 : engine().unacknowledged(fd);
}

/** Discards received bytes, instead of passing them to Node's parser. */
function discard(socket: Socket): void {
  detachParser(socket);
  let discarded = 0;
  // With a listener for 'data', Node's server no longer lets the parser read from the handle.
  socket.on('data', (bytes: Buffer) => {
    discarded += bytes.length;
    if (discarded > MAX_DISCARDED) socket.pause();
  });
  socket.resume();
}

/** Shuts down the write side, and closes when the client has closed its side or a timeout is reached. */
function linger(socket: Socket): void {
  let remaining = Number.POSITIVE_INFINITY;
  let lastProgress = performance.now();
  let interval = MIN_INTERVAL;
  let timer: NodeJS.Timeout;
  const close = () => {
    unwatch();
    clearTimeout(timer);
    restore(socket);
    socket.destroy();
  };
  const unwatch = onceClosed(socket, () => clearTimeout(timer));
  const poll = () => {
    const now = performance.now();
    const unsent = hasQueuedBytes(socket) ? Math.max(socket.writableLength, 1) : unacknowledged(socket);
    if (unsent < remaining) {
      remaining = unsent;
      lastProgress = now;
    }
    if (now - lastProgress >= (unsent === 0 ? LINGER_TIMEOUT : MAX_STALL)) {
      close();
      return;
    }
    timer = setTimeout(poll, interval);
    interval = Math.min(interval * 2, MAX_INTERVAL);
  };
  if (socket.readableEnded) {
    // The client has closed its side: nothing can arrive that would reset the connection.
    restore(socket);
    Socket.prototype.destroySoon.call(socket);
    unwatch();
    return;
  }
  socket.once('end', () => {
    if (!socket.writableFinished) socket.once('finish', close);
    else close();
  });
  socket.end();
  poll();
}
