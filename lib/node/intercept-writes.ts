/**
 * Defers `write()` and `end()` of a socket while a transfer sends bytes that do not pass through Node's queue.
 *
 * Deferred calls are replayed in order: writes after the transfers before them, the end after the last transfer. Only a
 * transfer that is being sent may intercept: Node also closes connections through `end()`, and a response that is waiting
 * for something else would keep them open.
 */
import { Socket } from 'node:net';

/** A transfer's place in the order of a socket's bytes, or a deferred write. */
type Entry = { ticket: true; released: boolean } | { ticket: false; args: unknown[] };

interface Interception {
  /** Transfers that have not ended. */
  transfers: number;
  queue: Entry[];
  end: unknown[] | undefined;
  /** Own properties `write` and `end` of the socket, if any: Node's `writeAfterFIN`, set before or during the interception. */
  own: Record<'write' | 'end', unknown>;
}

const interceptions = new WeakMap<Socket, Interception>();

/** Whether the `write` and `end` of a socket are intercepted. */
export function isIntercepted(socket: Socket): boolean {
  return interceptions.has(socket);
}

/** Whether a socket will be ended after its last transfer. */
export function isEndDeferred(socket: Socket): boolean {
  return interceptions.get(socket)?.end !== undefined;
}

/** Removes the deferred writes of a socket; returns their arguments. */
export function takeDeferredWrites(socket: Socket): unknown[][] {
  const state = interceptions.get(socket);
  if (state === undefined) return [];
  const writes = state.queue.flatMap((entry) => (entry.ticket ? [] : [entry.args]));
  state.queue = state.queue.filter((entry) => entry.ticket);
  return writes;
}

/** Intercepts until the returned function is called, for a transfer whose bytes precede every later write. Repeated calls do nothing. */
export function interceptWrites(socket: Socket): () => void {
  const state = interceptions.get(socket) ?? install(socket);
  state.transfers += 1;
  const ticket: Entry = { ticket: true, released: false };
  state.queue.push(ticket);
  let active = true;
  return () => {
    if (!active) return;
    active = false;
    state.transfers -= 1;
    ticket.released = true;
    settle(socket, state);
  };
}

/** Writes to an intercepted socket: for the transfer at the head of the queue. */
export function writeThrough(socket: Socket, bytes: Uint8Array | string, done: (error?: Error | null) => void): void {
  apply(socket, 'write', [bytes, done]);
}

function install(socket: Socket): Interception {
  const state: Interception = { transfers: 0, queue: [], end: undefined, own: { write: undefined, end: undefined } };
  interceptions.set(socket, state);
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

/** Defines an accessor, so that a value assigned during the interception takes effect after it. */
function replace(socket: Socket, state: Interception, method: 'write' | 'end', replacement: unknown): void {
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

function settle(socket: Socket, state: Interception): void {
  let wrote = false;
  for (let entry = state.queue[0]; entry !== undefined; entry = state.queue[0]) {
    if (entry.ticket && !entry.released) break;
    state.queue.shift();
    if (!entry.ticket) {
      wrote = true;
      // Also on a destroyed socket: Node passes the error to the callback.
      apply(socket, 'write', entry.args);
    }
  }
  if (state.transfers === 0) uninstall(socket, state);
  // `write` returned false; Node emits no 'drain' if its own queue is empty.
  if (wrote && !socket.destroyed && !socket.writableNeedDrain) queueMicrotask(() => socket.emit('drain'));
}

function uninstall(socket: Socket, state: Interception): void {
  interceptions.delete(socket);
  for (const method of ['write', 'end'] as const) {
    delete (socket as unknown as Record<string, unknown>)[method];
    if (state.own[method] !== undefined) Object.assign(socket, { [method]: state.own[method] });
  }
  if (state.end !== undefined) apply(socket, 'end', state.end);
}

function apply(socket: Socket, method: 'write' | 'end', args: unknown[]): unknown {
  return (Socket.prototype[method] as (...args: unknown[]) => unknown).apply(socket, args);
}
