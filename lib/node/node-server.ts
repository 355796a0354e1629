/**
 * Internals of Node's servers, for the front door.
 *
 * Used: `server._listen2()`, which is replaced to create the handle with `net._createServerHandle()`; `server._handle` (`fd`,
 * `constructor`, `open()`; `listen()`, `close()`, `ref()`, `unref()` and `hasRef()` are replaced on the handle);
 * `handle.onconnection`, `server._connections`, `server._emitCloseIfDrained()`.
 *
 * Node binds the socket and owns it, so `listening`, `address()`, errors of `bind` and all forms of `listen()` work as usual; only
 * listen(2) and accept(2) are done by native threads. Connections enter Node at the same place as those of libuv, so they are
 * counted, limited by `maxConnections`, and waited for by `close()`.
 *
 * Existing properties of the server must not become accessors: V8 would switch the object to dictionary mode, and Node reads
 * some properties for each request.
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

/** Replaces the methods of a listening handle. */
export interface Listener {
  /** Returns 0, or the negative errno. */
  listen(handle: ListenHandle, backlog: number): number;
  close(): void;
  /** Called by `ref()` and `unref()`. */
  keepAlive(keep: boolean): void;
  /** The handle has no descriptor: the primary process of a cluster listens. */
  unsupported(): void;
}

/** Creates a bound handle, or returns the negative errno. */
type CreateServerHandle = (
  address: string | null,
  port: number,
  addressType: number,
  fd: number | undefined,
  flags: number | undefined,
) => ListenHandle | number;

const createServerHandle = (net as unknown as { _createServerHandle?: CreateServerHandle })._createServerHandle;

/** The handle type of a connection. */
const SOCKET = 0;

const internals = (server: Server): ServerInternals => server as unknown as ServerInternals;

/** Whether the server has the internals described above. */
export function hasKnownInternals(server: Server): boolean {
  const { _handle, _connections, _emitCloseIfDrained, _listen2 } = internals(server);
  const methods = [_emitCloseIfDrained, _listen2, createServerHandle];
  return _handle === null && typeof _connections === 'number' && methods.every((one) => typeof one === 'function');
}

/** Makes `listener` listen instead of libuv, whenever `server` listens from now on. */
export function interceptListening(server: Server, listener: Listener): void {
  const state = internals(server);
  const listen2 = state._listen2;
  state._listen2 = (address, port, addressType, backlog, fd, flags) => {
    // If this fails, Node tries again and reports the error.
    state._handle ??= bind(address, port, addressType, fd, flags);
    const handle = state._handle;
    if (handle !== null) {
      if (typeof handle.fd === 'number' && handle.fd >= 0) replaceMethods(handle, listener);
      else listener.unsupported();
    }
    listen2.call(server, address, port, addressType, backlog, fd, flags);
  };
}

/** As Node does: without an address, binds to all IPv6 addresses, or to all IPv4 addresses if IPv6 is not available. */
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

function replaceMethods(handle: ListenHandle, listener: Listener): void {
  const close = handle.close;
  let referenced = true;
  const keep = (referencing: boolean) => {
    referenced = referencing;
    listener.keepAlive(referencing);
  };
  handle.listen = (backlog) => listener.listen(handle, backlog);
  handle.close = (callback) => {
    listener.close();
    close.call(handle, callback);
  };
  handle.ref = () => keep(true);
  handle.unref = () => keep(false);
  handle.hasRef = () => referenced;
}

/**
 * Passes the connection `fd` to the server of `handle`, as libuv does. If `maxConnections` is exceeded, Node closes it and emits
 * `drop`. Returns false if the descriptor could not be opened.
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

/** Makes Node refuse the connection `fd` with the event `drop`, regardless of the number of its connections. */
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

/** Delays the event `close` until the returned function is called. */
export function delayClose(server: Server): () => void {
  const state = internals(server);
  state._connections += 1;
  return () => {
    state._connections -= 1;
    state._emitCloseIfDrained();
  };
}

/** Handles a timeout for receiving a request as Node does: `clientError`, or 408. */
export function emitRequestTimeout(socket: Socket): void {
  socket.emit('error', Object.assign(new Error('Request timeout'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }));
}
