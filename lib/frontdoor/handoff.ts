/**
 * The front door of an `http.Server`: starts the native server when the `http.Server` listens, passes the connections that it
 * hands off to Node, and includes its connections in the methods of the `http.Server`.
 */
import http, { type Server } from 'node:http';
import type { Socket } from 'node:net';
import type { AccessLogEntry, HandoffConnection, LimitSettings } from '#native';
import {
  connect,
  delayClose,
  drop,
  emitRequestTimeout,
  hasKnownInternals,
  interceptListening,
  type ListenHandle,
} from '../node/node-server.js';
import { parseAsRead, putBack } from '../node/received.js';
import { closeRequest, engine, keepAlive, openRequest } from '../runtime/engine.js';
import { lingerOnClose } from '../runtime/linger.js';
import { type FrontDoorStatistics, noStatistics, readStatistics } from '../server/statistics.js';
import { failure, type ZerosendError } from '../util/errors.js';
import type { FrontDoorPlan } from './options.js';

/** The callbacks of the application that the server belongs to. */
export interface HandoffHost {
  /** Called when the server is about to listen. Returns further route patterns to exclude. */
  routes(): readonly string[];
  /** Called with the requests that native threads have answered. Default: no log. */
  log?: ((entries: readonly AccessLogEntry[]) => void) | undefined;
  /** Called when the front door cannot be used with the server, with the reason. */
  disable(reason: string): void;
}

/** Maximum number of connections passed to Node in one iteration of the event loop. */
const MAX_BATCH = 64;
/** The drain timeout in milliseconds. `server.close()` of Node has no timeout. */
const MAX_DRAIN = 2 ** 31;

/** The native server while it is open. */
interface NativeServer {
  /** Its handle in the engine. */
  handle: number;
  /** The number of the request that ends with the server. */
  request: number;
  listenHandle: ListenHandle;
  /** Number of connections taken from the queue so far. */
  taken: number;
  /** Another batch of connections will be taken in the next iteration of the event loop. */
  scheduled: boolean;
  /** Allows the event 'close'. Set when the server closes. */
  release: (() => void) | undefined;
}

export class Handoff {
  readonly #server: Server;
  readonly #plan: FrontDoorPlan;
  readonly #host: HandoffHost;
  #native: NativeServer | undefined;
  #finalStatistics: FrontDoorStatistics | undefined;
  #referenced = true;
  /** Bytes that were read from the connection that is being passed to Node. */
  #received: Buffer | undefined;
  /** The socket that Node has made for it. */
  #socket: Socket | undefined;
  #maxConnections: number | undefined;

  /** @param server Must not be listening yet. */
  constructor(server: Server, plan: FrontDoorPlan, host: HandoffHost) {
    if (server.listening) {
      throw failure('ERR_ZEROSEND_INVALID_ARGUMENT', 'the server is already listening; call frontDoor before listen()');
    }
    this.#server = server;
    this.#plan = plan;
    this.#host = host;
    if (!hasKnownInternals(server)) {
      host.disable('unsupported version of Node, or the server was modified');
      return;
    }
    // Before all other listeners, which must find the bytes that were read.
    server.prependListener('connection', (socket: Socket) => {
      if (this.#received !== undefined) putBack(socket, this.#received);
      this.#received = undefined;
      this.#socket = socket;
    });
    interceptListening(server, {
      listen: (handle, backlog) => this.#open(handle, backlog),
      close: () => this.#close(),
      keepAlive: (keep) => {
        this.#referenced = keep;
        if (this.#native !== undefined) keepAlive(this.#native.request, keep);
      },
      unsupported: () =>
        host.disable('the primary process of the cluster accepts connections; call listen() with exclusive: true'),
    });
    this.#includeNativeConnections();
  }

  /** The counters of the native server; after `close`, the final values. */
  stats(): FrontDoorStatistics {
    const { cache } = this.#plan;
    if (this.#native !== undefined) return readStatistics(this.#native.handle, cache);
    return this.#finalStatistics ?? noStatistics(cache);
  }

  /** Returns 0, or the negative errno. */
  #open(listenHandle: ListenHandle, backlog: number): number {
    const { settings, chunkSize, queue, workers, excludeRoutes } = this.#plan;
    const request = openRequest((event) => {
      if (event.progress === undefined) this.#onExit(native);
      else this.#poll(native);
    });
    const native: NativeServer = {
      handle: 0,
      request,
      listenHandle,
      taken: 0,
      scheduled: false,
      release: undefined,
    };
    const options = {
      port: 0,
      backlog,
      reusePort: false,
      workers,
      mounts: [...settings],
      headers: this.#plan.headerPairs,
      cors: false,
      chunk: chunkSize,
      limits: this.#limits(),
    };
    try {
      native.handle = engine().openHandoffServer(request, listenHandle.fd as number, options, {
        queue,
        excludeRoutes: [...excludeRoutes, ...this.#host.routes()],
        log: this.#host.log !== undefined,
        maxConnections: connectionLimit(this.#server.maxConnections as number | undefined),
      });
    } catch (error) {
      closeRequest(request);
      const { errno, syscall } = error as ZerosendError;
      if (errno === undefined || syscall === undefined) throw error;
      return errno;
    }
    this.#native = native;
    if (!this.#referenced) keepAlive(request, false);
    return 0;
  }

  /** The limits of the `http.Server`, replaced by those of the front door. */
  #limits(): LimitSettings {
    const { headersTimeout, requestTimeout, keepAliveTimeout, maxRequestsPerSocket, timeout } = this.#server;
    const { maxHeaderSize = http.maxHeaderSize } = this.#server as { maxHeaderSize?: number };
    const limits = engine().defaultLimits();
    const given = Object.entries(this.#plan.limits).filter(([, value]) => value !== undefined);
    const timeouts = [headersTimeout, requestTimeout].filter((milliseconds) => milliseconds > 0);
    return {
      ...limits,
      headBytes: Math.min(Math.max(maxHeaderSize, 256), 1024 * 1024),
      headers: 256,
      requestsPerConnection: maxRequestsPerSocket ?? 0,
      headTimeout: timeouts.length === 0 ? 0 : Math.min(...timeouts),
      idleTimeout: keepAliveTimeout,
      sendTimeout: timeout > 0 ? timeout : limits.sendTimeout,
      ...(Object.fromEntries(given) as Partial<LimitSettings>),
    };
  }

  /** Takes connections and log entries. */
  #poll(native: NativeServer): void {
    if (native !== this.#native) return;
    this.#takeConnections(native);
    if (this.#host.log !== undefined) this.#log(engine().takeLogEntries(native.handle));
  }

  #takeConnections(native: NativeServer): void {
    if (native.scheduled) return;
    const connections = engine().takeConnections(native.handle, MAX_BATCH);
    for (const connection of connections) this.#passToNode(native, connection);
    if (connections.length < MAX_BATCH) return;
    native.scheduled = true;
    setImmediate(() => {
      native.scheduled = false;
      if (native === this.#native) this.#takeConnections(native);
    });
  }

  /** Passes a connection to Node. An exception of a listener must not affect other connections. */
  #passToNode(native: NativeServer, { fd, received, reason }: HandoffConnection): void {
    native.taken += 1;
    const { handle, listenHandle } = native;
    if (reason === 'too-many') {
      runApplicationCode(() => drop(this.#server, listenHandle, fd));
      return;
    }
    if (reason === 'request') this.#received = received;
    runApplicationCode(() => {
      if (!connect(listenHandle, fd)) engine().returnConnections(handle, 1);
    });
    const socket = this.#socket;
    this.#socket = undefined;
    this.#received = undefined;
    if (socket === undefined) return;
    socket.once('close', () => {
      if (native === this.#native) engine().returnConnections(handle, 1);
    });
    // The client may not have received all of the previous responses.
    if (engine().unacknowledged(fd) > 0) lingerOnClose(socket);
    if (reason === 'timed-out') emitRequestTimeout(socket);
    if (reason === 'request' && received !== undefined) runApplicationCode(() => parseAsRead(socket, received));
  }

  #log(entries: readonly AccessLogEntry[]): void {
    if (entries.length > 0) this.#host.log?.(entries);
  }

  #close(): void {
    const native = this.#native;
    if (native === undefined || native.release !== undefined) return;
    native.release = delayClose(this.#server);
    engine().closeServer(native.handle, MAX_DRAIN);
  }

  #onExit(native: NativeServer): void {
    if (native !== this.#native) return;
    // The queue may still contain connections.
    for (;;) {
      const connections = engine().takeConnections(native.handle, MAX_BATCH);
      if (connections.length === 0) break;
      for (const connection of connections) this.#passToNode(native, connection);
    }
    this.#finalStatistics = readStatistics(native.handle, this.#plan.cache);
    this.#native = undefined;
    this.#log(engine().releaseHandoffServer(native.handle));
    native.release?.();
  }

  /** Makes the methods of the server include the connections of the native server. */
  #includeNativeConnections(): void {
    const server = this.#server;
    const { getConnections, closeIdleConnections, closeAllConnections } = server;
    server.getConnections = (callback) =>
      getConnections.call(server, (error, count) => callback(error, error ? count : count + this.#nativeConnections()));
    server.closeIdleConnections = () => {
      if (this.#native !== undefined) engine().closeConnections(this.#native.handle, 'idle');
      closeIdleConnections.call(server);
    };
    server.closeAllConnections = () => {
      if (this.#native !== undefined) engine().closeConnections(this.#native.handle, 'all');
      closeAllConnections.call(server);
    };
    this.#maxConnections = server.maxConnections as number | undefined;
    // An existing property must not become an accessor: see ../node/node-server.ts.
    if (Object.hasOwn(server, 'maxConnections')) return;
    Object.defineProperty(server, 'maxConnections', {
      configurable: true,
      enumerable: true,
      get: () => this.#maxConnections,
      set: (max: number | undefined) => {
        this.#maxConnections = max;
        if (this.#native !== undefined) engine().setMaxConnections(this.#native.handle, connectionLimit(max));
      },
    });
  }

  /** The number of connections of the native server and its queue, minus the one that `delayClose` adds. */
  #nativeConnections(): number {
    const native = this.#native;
    if (native === undefined) return 0;
    const { connections, handedOff } = engine().serverCounters(native.handle);
    return connections + handedOff - native.taken - (native.release === undefined ? 0 : 1);
  }
}

/** Runs code of the application. Exceptions become uncaught exceptions. */
function runApplicationCode(run: () => void): void {
  try {
    run();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** The meaning of `server.maxConnections` in this version of Node. */
function connectionLimit(max: number | undefined): number {
  if (max === undefined || max === null || Number.isNaN(max)) return Number.POSITIVE_INFINITY;
  const zeroIsUnlimited = Number(process.versions.node.split('.')[0]) < 21;
  return max === 0 && zeroIsUnlimited ? Number.POSITIVE_INFINITY : Math.max(0, max);
}
