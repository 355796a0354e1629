/** Callbacks for the closing of a socket, with one listener for all of them. */
import type { Socket } from 'node:net';

const callbacks = new WeakMap<Socket, Set<() => void>>();

/** Calls `callback` once when `socket` closes, unless the returned function is called before. */
export function onceClosed(socket: Socket, callback: () => void): () => void {
  const set = callbacks.get(socket) ?? listen(socket);
  set.add(callback);
  return () => void set.delete(callback);
}

function listen(socket: Socket): Set<() => void> {
  const set = new Set<() => void>();
  callbacks.set(socket, set);
  socket.once('close', () => {
    for (const callback of set) callback();
  });
  return set;
}
