/**
 * The front door of one `http.Server`: opens the native side when the server listens, gives Node the connections that
 * come from it, and tells the truth about those that do not.
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

/** What a door tells whoever made it. */
export interface DoorHost {
  /** Called when the server is about to listen; gives further patterns of routes for Node. */
  opening(): readonly string[];
  /** Requests that were answered natively; absent: nobody wants to know. */
  log?: ((entries: readonly AccessLogEntry[]) => void) | undefined;
  /** The door cannot stand here, in words. */
  disable(reason: string): void;
}

/** Connections given to Node in one round of the event loop. */
const MOST_AT_ONCE = 64;
/** Longer than any response: `server.close()` has no limit of its own. */
const FOR_EVER = 2 ** 31;

/** The native side while it is open. */
interface Opened {
  token: number;
  number: number;
  handle: ListenHandle;
  /** Connections taken from the queue so far. */
  taken: number;
  scheduled: boolean;
  /** Lets `close` happen; set when the server closes. */
  release: (() => void) | undefined;
}

export class Door {
  readonly #server: Server;
  readonly #plan: FrontDoorPlan;
  readonly #host: DoorHost;
  #opened: Opened | undefined;
  #last: FrontDoorStatistics | undefined;
  #referenced = true;
  #arriving: Buffer | undefined;
  #arrived: Socket | undefined;
  #maxConnections: number | undefined;

  /** Stands in front of `server`, which must not listen yet. */
  constructor(server: Server, plan: FrontDoorPlan, host: DoorHost) {
    if (server.listening) {
      throw failure(
        'ERR_ZEROSEND_INVALID_ARGUMENT',
        'the server listens already; put the front door up before listen()',
      );
    }
    this.#server = server;
    this.#plan = plan;
    this.#host = host;
    if (!hasKnownInternals(server)) {
      host.disable('this version of Node, or something that has changed the server, is not known to it');
      return;
    }
    // Before all other listeners: what was read already has to be there when they look.
    server.prependListener('connection', (socket: Socket) => {
      if (this.#arriving !== undefined) putBack(socket, this.#arriving);
      this.#arriving = undefined;
      this.#arrived = socket;
    });
    interceptListening(server, {
      listen: (handle, backlog) => this.#open(handle, backlog),
      close: () => this.#close(),
      keepAlive: (keep) => {
        this.#referenced = keep;
        if (this.#opened !== undefined) keepAlive(this.#opened.number, keep);
      },
      unsupported: () =>
        host.disable('the primary process of the cluster accepts the connections; listen with "exclusive: true"'),
    });
    this.#tellTheTruth();
  }

  /** What the native side has counted; after `close` the last counts. */
  stats(): FrontDoorStatistics {
    const { cache } = this.#plan;
    if (this.#opened !== undefined) return readStatistics(this.#opened.token, cache);
    return this.#last ?? noStatistics(cache);
  }

  #open(handle: ListenHandle, backlog: number): number {
    const { settings, chunkSize, queue, workers, excludeRoutes } = this.#plan;
    const number = openRequest((event) => {
      if (event.progress === undefined) this.#ended(opened);
      else this.#look(opened);
    });
    const opened: Opened = { token: 0, number, handle, taken: 0, scheduled: false, release: undefined };
    const server = {
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
      opened.token = engine().openHandoffServer(number, handle.fd as number, server, {
        queue,
        excludeRoutes: [...excludeRoutes, ...this.#host.opening()],
        log: this.#host.log !== undefined,
        maxConnections: bound(this.#server.maxConnections as number | undefined),
      });
    } catch (error) {
      closeRequest(number);
      const { errno, syscall } = error as ZerosendError;
      if (errno === undefined || syscall === undefined) throw error;
      return errno;
    }
    this.#opened = opened;
    if (!this.#referenced) keepAlive(number, false);
    return 0;
  }

  /** The bounds that the server has for its own connections hold for the door's. */
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

  /** There may be connections, or entries of the log. */
  #look(opened: Opened): void {
    if (opened !== this.#opened) return;
    this.#take(opened);
    if (this.#host.log !== undefined) this.#log(engine().takeLogEntries(opened.token));
  }

  #take(opened: Opened): void {
    if (opened.scheduled) return;
    const connections = engine().takeConnections(opened.token, MOST_AT_ONCE);
    for (const connection of connections) this.#give(opened, connection);
    if (connections.length < MOST_AT_ONCE) return;
    opened.scheduled = true;
    setImmediate(() => {
      opened.scheduled = false;
      if (opened === this.#opened) this.#take(opened);
    });
  }

  /** Gives a connection to Node. A listener that throws is the application's matter, and no other connection's. */
  #give(opened: Opened, { fd, received, reason }: HandoffConnection): void {
    opened.taken += 1;
    const { token, handle } = opened;
    if (reason === 'too-many') {
      rethrown(() => drop(this.#server, handle, fd));
      return;
    }
    if (reason === 'request') this.#arriving = received;
    rethrown(() => {
      if (!connect(handle, fd)) engine().returnConnections(token, 1);
    });
    const socket = this.#arrived;
    this.#arrived = undefined;
    this.#arriving = undefined;
    if (socket === undefined) return;
    socket.once('close', () => {
      if (opened === this.#opened) engine().returnConnections(token, 1);
    });
    // Files that were answered before may still be on their way to the client.
    if (engine().unacknowledged(fd) > 0) lingerOnClose(socket);
    if (reason === 'timed-out') emitRequestTimeout(socket);
    if (reason === 'request' && received !== undefined) rethrown(() => parseAsRead(socket, received));
  }

  #log(entries: readonly AccessLogEntry[]): void {
    if (entries.length > 0) this.#host.log?.(entries);
  }

  #close(): void {
    const opened = this.#opened;
    if (opened === undefined || opened.release !== undefined) return;
    opened.release = delayClose(this.#server);
    engine().closeServer(opened.token, FOR_EVER);
  }

  #ended(opened: Opened): void {
    if (opened !== this.#opened) return;
    // Who was handed over last is still in the queue.
    for (;;) {
      const connections = engine().takeConnections(opened.token, MOST_AT_ONCE);
      if (connections.length === 0) break;
      for (const connection of connections) this.#give(opened, connection);
    }
    this.#last = readStatistics(opened.token, this.#plan.cache);
    this.#opened = undefined;
    this.#log(engine().releaseHandoffServer(opened.token));
    opened.release?.();
  }

  /** What the server says of itself includes the connections that Node has not seen. */
  #tellTheTruth(): void {
    const server = this.#server;
    const { getConnections, closeIdleConnections, closeAllConnections } = server;
    server.getConnections = (callback) =>
      getConnections.call(server, (error, count) => callback(error, error ? count : count + this.#unseen()));
    server.closeIdleConnections = () => {
      if (this.#opened !== undefined) engine().closeConnections(this.#opened.token, 'idle');
      closeIdleConnections.call(server);
    };
    server.closeAllConnections = () => {
      if (this.#opened !== undefined) engine().closeConnections(this.#opened.token, 'all');
      closeAllConnections.call(server);
    };
    this.#maxConnections = server.maxConnections as number | undefined;
    // A new accessor keeps the server fast, one in place of a value would not: see ../node/node-server.ts.
    if (Object.hasOwn(server, 'maxConnections')) return;
    Object.defineProperty(server, 'maxConnections', {
      configurable: true,
      enumerable: true,
      get: () => this.#maxConnections,
      set: (most: number | undefined) => {
        this.#maxConnections = most;
        if (this.#opened !== undefined) engine().setMaxConnections(this.#opened.token, bound(most));
      },
    });
  }

  /** Connections that the native side has, and those on their way from it; without what holds `close` back. */
  #unseen(): number {
    const opened = this.#opened;
    if (opened === undefined) return 0;
    const { connections, handedOff } = engine().serverCounters(opened.token);
    return connections + handedOff - opened.taken - (opened.release === undefined ? 0 : 1);
  }
}

/** Runs code of the application; what it throws is an uncaught exception, and ends nothing here. */
function rethrown(run: () => void): void {
  try {
    run();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** As Node of this version reads `server.maxConnections`. */
function bound(most: number | undefined): number {
  if (most === undefined || most === null || Number.isNaN(most)) return Number.POSITIVE_INFINITY;
  const zeroIsNone = Number(process.versions.node.split('.')[0]) < 21;
  return most === 0 && zeroIsNone ? Number.POSITIVE_INFINITY : Math.max(0, most);
}
