/**
 * Every internal of Node's servers that the front door leans on, in one place.
 *
 * Used: `server._listen2()`, in whose place ours makes the handle by `net._createServerHandle()`; `server._handle` (`fd`,
 * `constructor`, `open()`, and `listen()`, `close()`, `ref()`, `unref()`, `hasRef()`, which are replaced on the handle itself);
 * `handle.onconnection`, `server._connections`, `server._emitCloseIfDrained()`.
 *
 * Node binds the socket and keeps it, so `listening`, `address()`, errors of `bind` and every form of `listen()` stay its
 * own; only `listen(2)` and `accept(2)` are done by others. Connections come in where libuv would have brought them in, so
 * they are counted, bounded by `maxConnections` and waited for by `close()`.
 *
 * No property of the server is turned into an accessor: V8 then keeps all of them in a slow table, and Node reads some
 * of them for each request.
 */
import { closeSync } from 'node:fs';
import type { Server } from 'node:http';
import net, { type Socket } from 'node:net';

interface ClientHandle {
  open(fd: number): number | undefined;
  close(): void;
}

export interface ListenHandle {
  readonly fd?: number;
  constructor: new (type: number) => ClientHandle;
  listen(backlog: number): number;
  close(callback?: () => void): void;
  ref(): void;
  unref(): void;
  hasRef(): boolean;
  onconnection(error: number, client: ClientHandle): void;
}

type Listen2 = (
  this: Server,
  address: string | null,
  port: number,
  addressType: number,
  backlog: number,
  fd: number | undefined,
  flags: number | undefined,
) => void;

interface ServerInternals {
  _listen2: Listen2;
  _handle: ListenHandle | null;
  _connections: number;
  _emitCloseIfDrained(): void;
}

/** What listens in Node's place. */
export interface Listening {
  /** Gives 0, or the negative errno. */
  listen(handle: ListenHandle, backlog: number): number;
  close(): void;
  keepAlive(keep: boolean): void;
  /** The handle is none that others could accept from: a cluster's primary listens. */
  cannot(): void;
}

/** Binds; gives the negative errno where that fails. */
type CreateServerHandle = (
  address: string | null,
  port: number,
  addressType: number,
  fd: number | undefined,
  flags: number | undefined,
) => ListenHandle | number;

const createServerHandle = (net as unknown as { _createServerHandle?: CreateServerHandle })._createServerHandle;

/** The type of a handle that has a connection. */
const SOCKET = 0;

const internals = (server: Server): ServerInternals => server as unknown as ServerInternals;

/** True where the shape of Node's server is the one described above. */
export function isKnownServer(server: Server): boolean {
  const { _handle, _connections, _emitCloseIfDrained, _listen2 } = internals(server);
  const methods = [_emitCloseIfDrained, _listen2, createServerHandle];
  return _handle === null && typeof _connections === 'number' && methods.every((one) => typeof one === 'function');
}

/** Puts `listening` in the place of libuv whenever `server` listens from now on. */
export function interceptListening(server: Server, listening: Listening): void {
  const state = internals(server);
  const listen2 = state._listen2;
  state._listen2 = (address, port, addressType, backlog, fd, flags) => {
    // What cannot be bound is tried again by Node, which words the error.
    state._handle ??= bind(address, port, addressType, fd, flags);
    const handle = state._handle;
    if (handle !== null) {
      if (typeof handle.fd === 'number' && handle.fd >= 0) replace(handle, listening);
      else listening.cannot();
    }
    listen2.call(server, address, port, addressType, backlog, fd, flags);
  };
}

/** As Node: without an address all of IPv6, or of IPv4 where there is none. */
function bind(
  address: string | null,
  port: number,
  addressType: number,
  fd: number | undefined,
  flags: number | undefined,
): ListenHandle | null {
  const create = createServerHandle as CreateServerHandle;
  const attempts: [string | null, number][] =
    address || typeof fd === 'number'
      ? [[address, addressType]]
      : [
          ['::', 6],
          ['0.0.0.0', 4],
        ];
  for (const [name, type] of attempts) {
    const handle = create(name, port, type, fd, flags);
    if (typeof handle !== 'number') return handle;
  }
  return null;
}

function replace(handle: ListenHandle, listening: Listening): void {
  const close = handle.close;
  let referenced = true;
  const keep = (referencing: boolean) => {
    referenced = referencing;
    listening.keepAlive(referencing);
  };
  handle.listen = (backlog) => listening.listen(handle, backlog);
  handle.close = (callback) => {
    listening.close();
    close.call(handle, callback);
  };
  handle.ref = () => keep(true);
  handle.unref = () => keep(false);
  handle.hasRef = () => referenced;
}

/**
 * Gives the connection `fd` to the server of `handle`, as libuv would. What is closed at once for being one too many is
 * told in the event `drop`. False: it could not be opened.
 */
export function connect(handle: ListenHandle, fd: number): boolean {
  const client = new handle.constructor(SOCKET);
  if (client.open(fd)) {
    closeSync(fd);
    return false;
  }
  handle.onconnection(0, client);
  return true;
}

/** Has Node refuse the connection `fd`, whatever it counts itself. */
export function drop(server: Server, handle: ListenHandle, fd: number): void {
  const state = internals(server);
  const count = state._connections;
  state._connections = Number.POSITIVE_INFINITY;
  try {
    connect(handle, fd);
  } finally {
    state._connections = count;
  }
}

/** Keeps the event `close` back until the returned function is called. */
export function holdClose(server: Server): () => void {
  const state = internals(server);
  state._connections += 1;
  return () => {
    state._connections -= 1;
    state._emitCloseIfDrained();
  };
}

/** Fails a connection as Node does whose request did not come in time: `clientError`, or 408. */
export function timeOut(socket: Socket): void {
  socket.emit('error', Object.assign(new Error('Request timeout'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }));
}
