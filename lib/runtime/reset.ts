/** TCP resets: they tell the peer that the bytes it has received are not complete. A Unix socket has none and is closed. */
import type { Socket } from 'node:net';

import { interceptDestroy, restoreDestroy } from '../node/intercept-destroy.js';
import { descriptor } from '../node/node-internals.js';
import { engine } from './engine.js';

/** Destroys a plain socket with a TCP reset instead of an orderly end. */
export function reset(socket: Socket): void {
  // Not `resetAndDestroy()`: libuv refuses that while a shutdown is under way, and Node then emits an error.
  armReset(socket);
  socket.destroy();
}

/**
 * For a socket that stays open after part of a transfer was sent: if it is destroyed before anything else is written, the
 * peer gets a reset.
 */
export function resetUnlessContinued(socket: Socket): void {
  const { bytesWritten } = socket;
  interceptDestroy(socket, () => {
    if (!socket.writableEnded && socket.bytesWritten === bytesWritten) armReset(socket);
  });
}

/** Undoes {@link resetUnlessContinued}: another transfer has started. */
export const continued: (socket: Socket) => void = restoreDestroy;

function armReset(socket: Socket): void {
  const fd = descriptor(socket);
  if (fd >= 0) engine().resetOnClose(fd);
}
