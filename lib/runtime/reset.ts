/** A socket on which a transfer ended early: its peer must not mistake a part of the bytes for the whole. */
import type { Socket } from 'node:net';

import { descriptor } from '../node/node-internals.js';
import { engine } from './engine.js';

/**
 * A part of a transfer was sent and the socket stays open for the caller to go on. When it is destroyed with nothing written
 * since then, the peer gets a reset.
 */
export function resetUnlessContinued(socket: Socket): void {
  const { bytesWritten } = socket;
  const owner = socket as unknown as {
    _destroy: (error: Error | null, callback: (error?: Error | null) => void) => void;
  };
  continued(socket);
  Object.defineProperty(socket, '_destroy', {
    value: (error: Error | null, callback: (error?: Error | null) => void) => {
      continued(socket);
      if (!socket.writableEnded && socket.bytesWritten === bytesWritten) armReset(socket);
      owner._destroy(error, callback);
    },
    configurable: true,
    writable: true,
    enumerable: false,
  });
}

/** Undoes {@link resetUnlessContinued}: another transfer has begun. */
export function continued(socket: Socket): void {
  if (Object.hasOwn(socket, '_destroy')) delete (socket as unknown as Record<string, unknown>)._destroy;
}

function armReset(socket: Socket): void {
  const fd = descriptor(socket);
  if (fd >= 0) engine().resetOnClose(fd);
}
