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
  /** The socket's own `write` and `end`, where it has any: Node's `writeAfterFIN`, set before or during the hold. */
  own: Record<'write' | 'end', unknown>;
}

const holds = new WeakMap<Socket, Hold>();

/** True for a socket whose methods are replaced by us. */
export function isHeld(socket: Socket): boolean {
  return holds.has(socket);
}

/** True for a held socket that is to be ended when nothing holds it any more. */
export function isEndHeld(socket: Socket): boolean {
  return holds.get(socket)?.end !== undefined;
}

/** The arguments of writes to a held socket that are deferred; they will not be replayed. */
export function takeDeferredWrites(socket: Socket): unknown[][] {
  const state = holds.get(socket);
  if (state === undefined) return [];
  const writes = state.queue.flatMap((entry) => (entry.ticket ? [] : [entry.args]));
  state.queue = state.queue.filter((entry) => entry.ticket);
  return writes;
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
  const state: Hold = { holders: 0, queue: [], end: undefined, own: { write: undefined, end: undefined } };
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
  replace(socket, state, 'write', write);
  replace(socket, state, 'end', end);
  return state;
}

/** An accessor, so that what is assigned during the hold takes effect after it. */
function replace(socket: Socket, state: Hold, method: 'write' | 'end', replacement: unknown): void {
  state.own[method] = Object.getOwnPropertyDescriptor(socket, method)?.value;
  Object.defineProperty(socket, method, {
    get: () => replacement,
    set: (value: unknown) => {
      state.own[method] = value;
    },
    configurable: true,
    enumerable: false,
  });
}

function settle(socket: Socket, state: Hold): void {
  let wrote = false;
  for (let entry = state.queue[0]; entry !== undefined; entry = state.queue[0]) {
    if (entry.ticket && !entry.released) break;
    state.queue.shift();
    if (!entry.ticket) {
      wrote = true;
      // On a destroyed socket too: the callback gets its error from Node.
      apply(socket, 'write', entry.args);
    }
  }
  if (state.holders === 0) uninstall(socket, state);
  // Writers were told to wait for 'drain'; when nothing is queued there is none to come.
  if (wrote && !socket.destroyed && !socket.writableNeedDrain) queueMicrotask(() => socket.emit('drain'));
}

function uninstall(socket: Socket, state: Hold): void {
  holds.delete(socket);
  for (const method of ['write', 'end'] as const) {
    delete (socket as unknown as Record<string, unknown>)[method];
    if (state.own[method] !== undefined) Object.assign(socket, { [method]: state.own[method] });
  }
  if (state.end !== undefined) apply(socket, 'end', state.end);
}

function apply(socket: Socket, method: 'write' | 'end', args: unknown[]): unknown {
  return (Socket.prototype[method] as (...args: unknown[]) => unknown).apply(socket, args);
}
