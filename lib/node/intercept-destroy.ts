/** Runs a function when a socket is destroyed, before Node closes its descriptor. */
import type { Socket } from 'node:net';

type Destroy = (error: Error | null, callback: (error?: Error | null) => void) => void;

/** Calls `before` once, when `socket` is destroyed and its descriptor is still open. Replaces an earlier interception. */
export function interceptDestroy(socket: Socket, before: () => void): void {
  const owner = socket as unknown as { _destroy: Destroy };
  restoreDestroy(socket);
  const value: Destroy = (error, callback) => {
    restoreDestroy(socket);
    before();
    owner._destroy(error, callback);
  };
  Object.defineProperty(socket, '_destroy', { value, configurable: true, writable: true, enumerable: false });
}

/** Ends the interception. */
export function restoreDestroy(socket: Socket): void {
  if (Object.hasOwn(socket, '_destroy')) delete (socket as unknown as { _destroy?: Destroy })._destroy;
}
