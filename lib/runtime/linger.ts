/**
 * Ends the connection of an HTTP server without cutting responses off that are whole: the lingering close of RFC 9112
 * section 9.6.
 *
 * When a client sends what Node's parser rejects (a malformed request, bytes after `Connection: close`), Node destroys the
 * socket at once: a file that is being looked up or sent is lost, and close(2) with unread bytes resets the connection, which
 * discards what the client has not acknowledged. Instead, files whose turn has come are sent, the write side is shut
 * down, and what arrives is discarded until the client closes, within bounds of bytes and time.
 *
 * Every other `destroy()` takes effect at once: that of a timeout, that of `closeAllConnections()`, and the application's except
 * in a listener of `clientError`.
 */
import { Socket } from 'node:net';
import { interceptWrites, takeDeferredWrites } from '../node/intercept-writes.js';
import { descriptor, hasParser, hasQueuedBytes, isPlainSocket } from '../node/node-internals.js';
import { engine } from './engine.js';
import { finishFiles, isFileInTurn } from './half-open.js';
import { IS_LINUX } from './platform.js';
import { onceClosed } from './socket-close.js';

/** Milliseconds that the client may take to close its side once it has acknowledged everything. */
const LINGER = 2000;
/** Milliseconds without an acknowledgement after which the connection is closed all the same. */
const MAX_STALL = 30_000;
/** Milliseconds between two looks at what the client has acknowledged: at first, doubled up to the second. */
const FIRST_TICK = 10;
const LAST_TICK = 1000;
/** Bytes that are discarded at most. Beyond that they stay in the receive buffer, where TCP holds the client up. */
const MAX_DISCARDED = 16 * 1024 * 1024;

const guarded = new WeakSet<Socket>();

/** From now on, `socket` ends without cutting responses off; where it is a plain socket of an HTTP server. */
export function endWhole(socket: Socket | null | undefined): void {
  if (!isPlainSocket(socket) || !hasParser(socket) || guarded.has(socket)) return;
  guarded.add(socket);
  let discarding = false;
  let rejecting = false;
  /** Writes of the application about what was rejected: the last response. */
  const answer: unknown[][] = [];
  // The first thing that Node does about an error of the parser, before `clientError` lets the application do the rest.
  // There is no event for it: Node emits none when a stream's only listener is removed.
  const removeListener = (event: string, listener: () => void): Socket => {
    if (event === 'error' && listener.name === 'socketOnError') {
      rejecting = true;
      // What is written now is not an answer to a file that is still being looked up.
      const release = isFileInTurn(socket) ? interceptWrites(socket) : () => {};
      process.nextTick(() => {
        rejecting = false;
        if (discarding) answer.push(...takeDeferredWrites(socket));
        release();
      });
    }
    return Socket.prototype.removeListener.call(socket, event, listener) as Socket;
  };
  const destroy = (error?: Error): Socket => {
    if (!(rejecting || isParserError(error)) || socket.destroyed || !hasUnsent(socket)) {
      restore(socket);
      return socket.destroy(error);
    }
    if (!discarding) {
      discarding = true;
      discard(socket);
      answer.push(...takeDeferredWrites(socket));
      finishFiles(socket, () => {
        for (const args of answer) (socket.write as (...args: unknown[]) => boolean)(...args);
        linger(socket);
      });
    }
    return socket;
  };
  const destroySoon = (): void => {
    if (discarding) return;
    if (hasUnsent(socket)) {
      discarding = true;
      discard(socket);
      linger(socket);
      return;
    }
    restore(socket);
    socket.destroySoon();
  };
  const own = { destroy, destroySoon, removeListener };
  for (const name of OWN) Object.defineProperty(socket, name, { value: own[name], configurable: true, writable: true });
}

const OWN = ['destroy', 'destroySoon', 'removeListener'] as const;

function restore(socket: Socket): void {
  for (const name of OWN) delete (socket as Partial<Socket>)[name];
}

/** llhttp's errors: the bytes are wrong, not the connection. */
function isParserError(error: Error | undefined): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code?.startsWith('HPE_') === true;
}

/** True while a file is in turn, or the kernel has bytes that the client has not acknowledged. */
function hasUnsent(socket: Socket): boolean {
  return isFileInTurn(socket) || hasQueuedBytes(socket) || unacknowledged(socket) > 0;
}

/** Bytes that the kernel has and the client has not acknowledged; 0 where the kernel does not say (other platforms than Linux). */
function unacknowledged(socket: Socket): number {
  const fd = IS_LINUX ? descriptor(socket) : -1;
  return fd < 0 ? 0 : engine().unacknowledged(fd);
}

/** Takes the socket's bytes from Node's parser, which rejects all that follows an error. */
function discard(socket: Socket): void {
  for (const [event, name] of [
    ['data', 'bound socketOnData'],
    ['end', 'bound socketOnEnd'],
  ] as const) {
    for (const listener of socket.listeners(event)) {
      if (listener.name === name) socket.removeListener(event, listener as () => void);
    }
  }
  let discarded = 0;
  // `on` has Node's server give the bytes to listeners instead of the parser.
  socket.on('data', (bytes: Buffer) => {
    discarded += bytes.length;
    if (discarded > MAX_DISCARDED) socket.pause();
  });
  socket.resume();
}

/** Shuts the write side down, and closes when the client has closed or takes too long to. */
function linger(socket: Socket): void {
  let left = Number.POSITIVE_INFINITY;
  let progress = performance.now();
  let tick = FIRST_TICK;
  let timer: NodeJS.Timeout;
  const close = () => {
    unwatch();
    clearTimeout(timer);
    restore(socket);
    socket.destroy();
  };
  const unwatch = onceClosed(socket, () => clearTimeout(timer));
  const look = () => {
    const now = performance.now();
    const unsent = hasQueuedBytes(socket) ? Math.max(socket.writableLength, 1) : unacknowledged(socket);
    if (unsent < left) {
      left = unsent;
      progress = now;
    }
    if (now - progress >= (unsent === 0 ? LINGER : MAX_STALL)) {
      close();
      return;
    }
    timer = setTimeout(look, tick);
    tick = Math.min(tick * 2, LAST_TICK);
  };
  if (socket.readableEnded) {
    // Nothing can arrive that resets the connection.
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
  look();
}
