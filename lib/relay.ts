/** `createProxy` and `createEchoServer`: bytes from socket to socket on native threads; JavaScript starts and watches. */
import { availableParallelism } from 'node:os';

import { type BoundAddress, readAddress, resolveAddress, type SocketAddress } from './address.js';
import { ask, engine } from './engine.js';
import { invalid } from './errors.js';
import type { AddressSettings, RelaySettings } from './native.js';
import { checkInteger } from './server-options.js';

export interface RelayOptions {
  /** Where to listen. Default 0: a port of 127.0.0.1 that is free. */
  listen?: SocketAddress | undefined;
  /**
   * How bytes go: through a pipe of the kernel (`'splice'`), or through a buffer in user space. Default `'auto'`, which is
   * `'splice'`; `'read-write'` is as fast for messages of a few hundred bytes, and costs more for each byte of all others.
   */
  method?: 'auto' | 'splice' | 'read-write' | undefined;
  /** Bytes of a pipe, a power of two of pages. Default 65,536: larger ones cost less CPU time for each byte. */
  pipeSize?: number | undefined;
  /** Threads, 1 to 1,024. Default: as many as there are cores for this process. */
  workers?: number | undefined;
  /** Connections that wait to be accepted, listen(2). Default 4,096. */
  backlog?: number | undefined;
  /** Connections at once; more are closed. Default 65,536. */
  maxConnections?: number | undefined;
  /** Milliseconds without a byte in either direction: closed. Default 0: no bound. */
  idleTimeout?: number | undefined;
}

export interface ProxyOptions extends RelayOptions {
  /** Where connections go to: one address, or several to choose from. */
  target: SocketAddress | readonly SocketAddress[];
  /** How one of several targets is chosen. Those that did not answer come last for `downTime`. Default `'round-robin'`. */
  balance?: 'round-robin' | 'least-connections' | undefined;
  /** Milliseconds for a connection to a target. Default 5,000. */
  connectTimeout?: number | undefined;
  /** Further targets that are tried when one does not answer; the client's bytes wait meanwhile. Default 2. */
  retries?: number | undefined;
  /** Milliseconds that a target which did not answer is left alone while there are others. Default 5,000. */
  downTime?: number | undefined;
  /** Tell targets the client's address first, by the PROXY protocol of HAProxy. Default: not. */
  proxyProtocol?: 'v1' | 'v2' | undefined;
}

export interface RelayStatistics {
  /** Open now. */
  connections: number;
  accepted: number;
  /** Of these, closed at once: too many, or no descriptors left. */
  refused: number;
  /** Clients for whom no target answered; their connection was reset. */
  unreachable: number;
  /** Further targets that were tried. */
  retries: number;
  /** Targets that did not answer in time. */
  connectTimeouts: number;
  idleTimeouts: number;
  /** Connections that one side has reset; so the other was. */
  failed: number;
  /** Connections cut by `close`. */
  cut: number;
  /** Connections whose bytes went through user space for want of pipes. */
  degraded: number;
  /** Bytes from clients, of connections that have ended. */
  bytesUp: number;
  /** Bytes to clients, of connections that have ended. */
  bytesDown: number;
}

/** A proxy or an echo server that listens. It keeps the process alive until it is closed. */
export interface Relay {
  /** Where it listens. */
  readonly address: BoundAddress;
  /** What it has counted; after `close` the last counts. */
  stats(): RelayStatistics;
  /** Accepts no more, lets connections end for `drain` milliseconds (default 10,000), and resets what is left. */
  close(options?: { drain?: number | undefined }): Promise<void>;
}

/**
 * Joins each connection to `listen` with one to `target`: TCP and Unix sockets on either side, any protocol. A half-close
 * ends one direction, a reset both.
 *
 * Rejects with `ERR_ZEROSEND_INVALID_ARGUMENT` for options that are wrong, `EADDRINUSE`, `EACCES`, `ENOTFOUND`, ... A target
 * that is down is no error here: its clients are reset, and counted as `unreachable`.
 */
export async function createProxy(options: ProxyOptions): Promise<Relay> {
  const { target } = options ?? {};
  const list = (Array.isArray(target) ? target : [target]) as readonly SocketAddress[];
  if (list.length === 0) throw invalid('target', target, 'at least one address');
  for (const address of list) {
    const { path, port } = readAddress('target', address);
    if (path === undefined && port === 0) throw invalid('target', address, 'an address with a port from 1 up');
  }
  const settings = readOptions(options);
  return open(settings, options.listen, await Promise.all(list.map((one) => resolveAddress('target', one))));
}

/** Gives back to each client what it sends: the smallest relay. Rejects as {@link createProxy} does. */
export async function createEchoServer(options: RelayOptions = {}): Promise<Relay> {
  return open(readOptions(options), options.listen, undefined);
}

type Settings = Omit<RelaySettings, 'listen' | 'targets'>;

function readOptions(options: Partial<ProxyOptions>): Settings {
  const { method = 'auto', balance = 'round-robin', proxyProtocol } = options;
  const { pipeSize = 65_536, workers = availableParallelism(), backlog = 4096, maxConnections = 65_536 } = options;
  const { idleTimeout = 0, connectTimeout = 5000, retries = 2, downTime = 5000 } = options;
  oneOf('method', method, ['auto', 'splice', 'read-write']);
  oneOf('balance', balance, ['round-robin', 'least-connections']);
  if (proxyProtocol !== undefined) oneOf('proxyProtocol', proxyProtocol, ['v1', 'v2']);
  checkInteger('pipeSize', pipeSize, 4096, 2 ** 30);
  checkInteger('workers', workers, 1, 1024);
  checkInteger('backlog', backlog, 1, 65_535);
  checkInteger('maxConnections', maxConnections, 1, 2 ** 24);
  checkInteger('retries', retries, 0, 1000);
  const times = { idleTimeout, connectTimeout, downTime };
  for (const [name, value] of Object.entries(times)) checkInteger(name, value, 0, 2 ** 31);
  const settings: Settings = {
    method: method === 'auto' ? 'splice' : method,
    balance,
    pipeSize,
    workers,
    backlog,
    connections: maxConnections,
    retries,
    ...times,
  };
  if (proxyProtocol !== undefined) settings.proxyProtocol = proxyProtocol;
  return settings;
}

function oneOf(name: string, value: string, words: readonly string[]): void {
  if (!words.includes(value)) throw invalid(name, value, words.map((word) => `'${word}'`).join(', '));
}

async function open(settings: Settings, listen: SocketAddress = 0, targets?: AddressSettings[]): Promise<Relay> {
  const place = await resolveAddress('listen', listen);
  let token = 0;
  let address: BoundAddress | undefined;
  let last: RelayStatistics | undefined;
  const ended = ask((number) => {
    const opened = engine().openRelay(number, { ...settings, listen: place, ...(targets ? { targets } : {}) });
    token = opened.token;
    address = opened.host === undefined ? { path: place.path as string } : { host: opened.host, port: opened.port };
  });
  // A refusal is thrown at once; the end comes later and is nobody's failure.
  if (address === undefined) {
    await ended;
    throw new Error('unreachable');
  }
  const bound = address;
  return {
    address: bound,
    stats: () => last ?? engine().relayCounters(token),
    async close({ drain = 10_000 } = {}) {
      if (typeof drain !== 'number' || !(drain >= 0)) throw invalid('drain', drain, 'milliseconds from 0 up');
      if (last !== undefined) return;
      engine().closeRelay(token, Math.min(drain, 2 ** 31));
      await ended;
      last ??= engine().relayCounters(token);
      engine().release(token);
    },
  };
}
