/**
 * Defers writes to a socket and its end while a transfer sends bytes past Node's queue.
 *
 * Deferred calls are replayed in their order: writes when the transfers before them have ended, the end when the last
 * transfer has. So bytes never overtake each other. Only a transfer that is being sent may hold a socket: Node closes
 * connections through `end()` too, and a response that waits for something else would keep them open.
 */
import { Socket } from 'node:net';

/** A transfer's place in the order of a socket's bytes, or a deferred write. */
type Entry = { ticket: true; released: boolean } | { ticket: false; args: unknown[] };

interface Hold {
  /** Transfers that have not ended. */
  holders: number;
  queue: Entry[];
  end: unknown[] | undefined;
}

const holds = new WeakMap<Socket, Hold>();

/** True for a socket whose methods are replaced by us. */
export function isHeld(socket: Socket): boolean {
  return holds.has(socket);
}

/** Holds until the returned function is called (once; later calls do nothing), for a transfer whose bytes go before every later write. */
export function hold(socket: Socket): () => void {
  const state = holds.get(socket) ?? install(socket);
  state.holders += 1;
  const place: Entry = { ticket: true, released: false };
  state.queue.push(place);
  let held = true;
  return () => {
    if (!held) return;
    held = false;
    state.holders -= 1;
    place.released = true;
    settle(socket, state);
  };
}

/** Writes to a held socket: for the holder whose turn it is. */
export function writeThrough(socket: Socket, bytes: Uint8Array | string, done: (error?: Error | null) => void): void {
  apply(socket, 'write', [bytes, done]);
}

function install(socket: Socket): Hold {
  const state: Hold = { holders: 0, queue: [], end: undefined };
  holds.set(socket, state);
  const write = (...args: unknown[]): unknown => {
    if (state.queue.length === 0) return apply(socket, 'write', args);
    state.queue.push({ ticket: false, args });
    return false;
  };
  const end = (...args: unknown[]): Socket => {
    state.end ??= args;
    return socket;
  };
  Object.defineProperties(socket, {
    write: { value: write, configurable: true, writable: true, enumerable: false },
    end: { value: end, configurable: true, writable: true, enumerable: false },
  });
  return state;
}

function settle(socket: Socket, state: Hold): void {
  let wrote = false;
  for (let entry = state.queue[0]; entry !== undefined; entry = state.queue[0]) {
    if (entry.ticket && !entry.released) break;
    state.queue.shift();
    if (!entry.ticket && !socket.destroyed) {
      wrote = true;
      apply(socket, 'write', entry.args);
    }
  }
  if (state.holders === 0) uninstall(socket, state);
  // Writers were told to wait for 'drain'; when nothing is queued there is none to come.
  if (wrote && !socket.destroyed && !socket.writableNeedDrain) queueMicrotask(() => socket.emit('drain'));
}

function uninstall(socket: Socket, state: Hold): void {
  holds.delete(socket);
  // Only what is still ours: Node itself replaces `write` when the other side has closed.
  const own = socket as unknown as Record<string, unknown>;
  for (const method of ['write', 'end']) {
    if (Object.getOwnPropertyDescriptor(own, method)?.enumerable === false) delete own[method];
  }
  if (state.end !== undefined && !socket.destroyed) apply(socket, 'end', state.end);
}

function apply(socket: Socket, method: 'write' | 'end', args: unknown[]): unknown {
  return (Socket.prototype[method] as (...args: unknown[]) => unknown).apply(socket, args);
}
