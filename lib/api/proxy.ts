/** `createProxy` and `createEchoServer`: relays on native threads, started and observed from JavaScript. */
import { availableParallelism } from 'node:os';
import type { AddressSettings, MirrorSettings, RelaySettings, RelayTargetRequest, TargetSettings } from '#native';
import { engine, request, requestHandle } from '../runtime/engine.js';
import { checkName, openAll } from '../runtime/output.js';
import {
  type BoundAddress,
  hasName,
  readAddress,
  resolveAddress,
  resolveAll,
  type SocketAddress,
} from '../util/address.js';
import { failure, invalid, type ZerosendError } from '../util/errors.js';
import { checkInteger, parseEnum } from '../util/options.js';

export interface RelayOptions {
  /**
   * Where to listen. Default 0: a free port of 127.0.0.1. Replaces a Unix socket that no process listens on.
   */
  listen?: SocketAddress | undefined;
  /**
   * How bytes are moved: through a pipe of the kernel (`'splice'`) or through a buffer in user space (`'read-write'`). Default
   * `'auto'`: reads of less than 16 KiB through a buffer, which costs less; streams, and everything that has mirrors, through a pipe.
   */
  method?: 'auto' | 'splice' | 'read-write' | undefined;
  /** Bytes of a pipe, a power of two of pages. Default 262,144: less CPU time per byte than 65,536. */
  pipeSize?: number | undefined;
  /** Threads, 1 to 1,024. Default: the number of CPUs available to the process. */
  workers?: number | undefined;
  /** Maximum length of the queue of connections that are not accepted yet, listen(2). Default 4,096. */
  backlog?: number | undefined;
  /**
   * Permissions of a Unix socket that is listened on, such as `0o660`; clients need write permission. Default: 0o777 less the umask,
   * usually 0o755.
   */
  socketMode?: number | undefined;
  /** Maximum number of connections; further ones are closed at once. Default 65,536. */
  maxConnections?: number | undefined;
  /**
   * Milliseconds without a byte from either side, and without a sent byte acknowledged, after which both sides are reset. Default 0:
   * no limit.
   */
  idleTimeout?: number | undefined;
  /**
   * Milliseconds without a segment from a TCP peer until it is probed (`SO_KEEPALIVE`), rounded up to seconds. If it does not answer
   * for the same time again, its connection fails with `ETIMEDOUT`. Default 60,000; 0: no probes.
   */
  keepAlive?: number | undefined;
}

/** A client of a proxy. Clients of Unix sockets have no addresses. */
export interface ProxyClient {
  remoteAddress?: string | undefined;
  remotePort?: number | undefined;
  /** The address that it has connected to. */
  localAddress?: string | undefined;
  localPort?: number | undefined;
  /** Number of addresses that were tried for it before. */
  attempt: number;
}

/** Returns the address of the target for a client, or `undefined` to reset the client. */
export type ProxyTarget = (client: ProxyClient) => SocketAddress | undefined | Promise<SocketAddress | undefined>;

/** A mirror: receives a copy of one direction. */
export type ProxyMirror = (
  | {
      /**
       * A file to append to, created if missing, or a FIFO or terminal to write to. The streams of simultaneous connections alternate
       * in it in chunks, as do those of several mirrors, proxies and processes with the same file; each chunk is written once and
       * whole.
       *
       * With variables in the name, each connection has a file: `{n}` is the number of the connection, counted from 1 or from the
       * first number that no existing file has; `{time}` is when it was accepted (`20261126T185441.123Z`, UTC); `{client}` is the
       * address of the client (`192.0.2.1_40000`, `unix`); `{id}` is an id that is unique across proxies and processes. A file with
       * `{n}` in its name is always a new one; other files are appended to.
       */
      file: string;
      /** Permission bits of new files, less the umask. Default `0o600`. */
      mode?: number | undefined;
    }
  | {
      /**
       * A server, with a connection for each client. Its responses are read and discarded. It is connected to as a target is: all
       * addresses of its name in turn within `connectTimeout`, with retries while the queue of a Unix socket is full.
       */
      connect: SocketAddress;
    }
) & {
  /** `'up'`, the default, copies what clients send, `'down'` what targets send. */
  direction?: 'up' | 'down' | undefined;
  /**
   * What happens to bytes that the mirror does not accept in time, beyond the 256 KiB of its pipe (512 KiB for a file). `'drop'`, the
   * default: the mirror misses them, which is counted; the connection is not affected, and later bytes are written again. `'block'`:
   * the connection waits, and is reset when the mirror fails.
   */
  policy?: 'block' | 'drop' | undefined;
};

export interface ProxyOptions extends RelayOptions {
  /**
   * Where to connect to: an address, several to choose from, or a function that is called for each connection, and again when its
   * address cannot be connected to. The function has `connectTimeout` to return. All addresses of a name are tried in turn, IPv4 and
   * IPv6, within `connectTimeout`.
   */
  target: SocketAddress | readonly SocketAddress[] | ProxyTarget;
  /** Called when `target` throws or returns an invalid address; the client is reset. Default: emits a process warning. */
  onError?: ((error: Error, client: ProxyClient) => void) | undefined;
  /** Mirrors, 14 at most. Default: none. */
  mirror?: readonly ProxyMirror[] | undefined;
  /**
   * Milliseconds between lookups of the names of targets and mirrors. If a lookup fails, the addresses stay. Default 30,000; 0: only
   * at the start.
   */
  resolveInterval?: number | undefined;
  /** How one of several targets is chosen. Targets that are down come last for `downTime`. Default `'round-robin'`. */
  balance?: 'round-robin' | 'least-connections' | undefined;
  /** Milliseconds to connect to a target. Default 5,000. */
  connectTimeout?: number | undefined;
  /** Number of further targets to try after one has failed; the bytes of the client wait meanwhile. Default 2. */
  retries?: number | undefined;
  /** Milliseconds for which a target that could not be connected to comes last. Default 5,000. */
  downTime?: number | undefined;
  /** Send targets the address of the client first, in a header of the PROXY protocol of HAProxy. Default: no header. */
  proxyProtocol?: 'v1' | 'v2' | undefined;
}

export interface RelayStatistics {
  /** Open connections. */
  connections: number;
  /** Accepted connections. */
  accepted: number;
  /** Accepted connections that were closed at once, and pauses in accepting for lack of descriptors. */
  refused: number;
  /** Connections for which no target could be connected to; the client was reset. */
  unreachable: number;
  /** Further targets that were tried. */
  retries: number;
  /** Targets that did not answer within `connectTimeout`. */
  connectTimeouts: number;
  /** Connections closed by `idleTimeout`. */
  idleTimeouts: number;
  /** Connections closed because the client was reset or failed; the target was reset too. */
  clientFailures: number;
  /** Connections closed because the target was reset or failed; the client was reset too. */
  targetFailures: number;
  /** Mirrors of connections that failed. */
  mirrorFailures: number;
  /** Connections closed by force at the end of the drain time of `close`. */
  forcedCloses: number;
  /** Connections whose bytes went through user space for lack of a pipe. */
  degraded: number;
  /** Bytes from clients to targets. */
  bytesUp: number;
  /** Bytes from targets to clients. */
  bytesDown: number;
  /** Bytes written to mirrors. */
  mirrored: number;
  /** Bytes that mirrors missed. */
  dropped: number;
  /** Connections closed because of an internal error. */
  panics: number;
}

/** A running proxy or echo server. It keeps the process alive until it is closed. */
export interface Relay {
  /** The address it listens at. */
  readonly address: BoundAddress;
  /** The counters; after `close` their last values. */
  stats(): RelayStatistics;
  /**
   * Opens the files of mirrors by their paths again, after they were renamed or deleted. Rejects with the name of an errno if a file
   * cannot be opened; the open file stays in use.
   */
  reopen(): Promise<void>;
  /** Stops accepting, waits up to `drain` milliseconds (default 10,000) for connections to end, and resets the rest. */
  close(options?: { drain?: number | undefined }): Promise<void>;
}

/**
 * Connects each client of `listen` to `target`: TCP or Unix sockets on either side, any protocol. A half-close ends one direction; a
 * reset of one side resets the other.
 *
 * Rejects with `ERR_ZEROSEND_INVALID_ARGUMENT` for invalid options, `EADDRINUSE`, `EACCES`, `ENOTFOUND`, ... A target that is down does
 * not make it reject: its clients are reset and counted as `unreachable`.
 */
export async function createProxy(options: ProxyOptions): Promise<Relay> {
  const { target, mirror = [], onError } = options ?? {};
  if (onError !== undefined && typeof onError !== 'function') throw invalid('onError', onError, 'a function');
  if (!Array.isArray(mirror)) throw invalid('mirror', mirror, 'an array of { file } and { connect }');
  if (mirror.length > MAX_MIRRORS) throw invalid('mirror', mirror, `at most ${MAX_MIRRORS} entries`);
  const settings = readOptions(options);
  const { resolveInterval = 30_000 } = options;
  checkInteger('resolveInterval', resolveInterval, 0, 2 ** 31 - 1);
  const mirrors = await Promise.all(mirror.map((one: ProxyMirror, at) => readMirror(`mirror[${at}]`, one)));
  const refresher = new NameRefresher(resolveInterval);
  const servers = mirror.map((one: { connect?: SocketAddress }) => one.connect);
  refresher.add(servers, (...settings) => engine().setMirrorAddresses(...settings));
  if (typeof target === 'function') {
    const resolver = new TargetResolver(target, onError);
    return open({ ...settings, targets: [] }, options.listen, mirrors, resolver, refresher);
  }
  const list = (Array.isArray(target) ? target : [target]) as readonly SocketAddress[];
  if (list.length === 0) throw invalid('target', target, 'at least one address');
  const targets = await Promise.all(list.map(async (one) => ({ addresses: await lookUp('target', one) })));
  refresher.add(list, (...settings) => engine().setTargetAddresses(...settings));
  return open({ ...settings, targets }, options.listen, mirrors, undefined, refresher);
}

/** Sends each client back what it sends. Rejects as {@link createProxy} does. */
export async function createEchoServer(options: RelayOptions = {}): Promise<Relay> {
  return open(readOptions(options), options.listen);
}

type Settings = Omit<RelaySettings, 'listen' | 'mirrors'>;

/** A mirror with checked options, whose file is not open yet. */
interface MirrorRequest extends Omit<MirrorSettings, 'file'> {
  file?: { name: string; mode: number };
}

const MAX_MIRRORS = 14;

/** Looks up all addresses of a target or mirror. `name`: of the option, for errors. */
async function lookUp(name: string, address: SocketAddress): Promise<AddressSettings[]> {
  const { path, port } = readAddress(name, address);
  if (path === undefined && port === 0) throw invalid(name, address, 'an address with a port from 1 up');
  return resolveAll(name, address);
}

/** Replaces the addresses of the target or mirror with the index `at`. */
type SetAddresses = (handle: number, at: number, settings: TargetSettings) => void;

/** Looks up the names of targets and mirrors periodically. */
class NameRefresher {
  readonly #interval: number;
  readonly #named: { address: SocketAddress; at: number; setAddresses: SetAddresses }[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(interval: number) {
    this.#interval = interval;
  }

  /** Adds those of the addresses that are host names; their index is that in `addresses`. */
  add(addresses: readonly (SocketAddress | undefined)[], setAddresses: SetAddresses): void {
    for (const [at, address] of addresses.entries()) {
      if (address !== undefined && hasName(readAddress('address', address))) {
        this.#named.push({ address, at, setAddresses });
      }
    }
  }

  start(handle: number): void {
    if (this.#interval === 0 || this.#named.length === 0) return;
    const refresh = async () => {
      for (const { address, at, setAddresses } of this.#named) {
        const addresses = await lookUp('address', address).catch(() => undefined);
        if (this.#timer === undefined) return;
        if (addresses !== undefined) setAddresses(handle, at, { addresses });
      }
      this.#timer?.refresh();
    };
    this.#timer = setTimeout(() => void refresh(), this.#interval).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

async function readMirror(name: string, mirror: ProxyMirror): Promise<MirrorRequest> {
  const defaults = { file: undefined, connect: undefined, mode: undefined };
  const { direction = 'up', policy = 'drop', file, connect, mode = 0o600 } = { ...defaults, ...mirror };
  parseEnum(`${name}.direction`, direction, ['up', 'down']);
  parseEnum(`${name}.policy`, policy, ['block', 'drop']);
  if ((file === undefined) === (connect === undefined)) throw invalid(name, mirror, '{ file } or { connect }');
  if (connect !== undefined) {
    return { direction, policy, connect: { addresses: await lookUp(`${name}.connect`, connect) } };
  }
  checkName(`${name}.file`, file);
  checkInteger(`${name}.mode`, mode, 0, 0o777);
  return { direction, policy, file: { name: file as string, mode } };
}

/** Calls the target function for the requests of a relay. */
class TargetResolver {
  readonly #target: ProxyTarget;
  readonly #onError: (error: Error, client: ProxyClient) => void;

  constructor(target: ProxyTarget, onError: ProxyOptions['onError']) {
    this.#target = target;
    this.#onError = onError ?? ((error) => process.emitWarning(error));
  }

  resolveAll(handle: number): void {
    for (const request of engine().takeTargetRequests(handle)) void this.#resolve(handle, request);
  }

  async #resolve(handle: number, request: RelayTargetRequest): Promise<void> {
    const { worker, link, ...client } = request;
    let addresses: AddressSettings[] | undefined;
    try {
      const target = await this.#target(client);
      if (target !== undefined) addresses = await lookUp('result of target()', target);
    } catch (error) {
      this.#onError(error as Error, client);
    }
    try {
      engine().resolveTarget(handle, request, addresses && { addresses });
    } catch (error) {
      // The relay was closed in the meantime, which has reset the client.
      if ((error as ZerosendError).code !== 'ERR_ZEROSEND_CLOSED') throw error;
    }
  }
}

function readOptions(options: Partial<ProxyOptions>): Omit<Settings, 'targets'> {
  const { method = 'auto', balance = 'round-robin', proxyProtocol, socketMode } = options;
  const { pipeSize = 262_144, workers = availableParallelism(), backlog = 4096, maxConnections = 65_536 } = options;
  const { idleTimeout = 0, keepAlive = 60_000, connectTimeout = 5000, retries = 2, downTime = 5000 } = options;
  parseEnum('method', method, ['auto', 'splice', 'read-write']);
  parseEnum('balance', balance, ['round-robin', 'least-connections']);
  if (proxyProtocol !== undefined) parseEnum('proxyProtocol', proxyProtocol, ['v1', 'v2']);
  checkInteger('pipeSize', pipeSize, 4096, 2 ** 30);
  checkInteger('workers', workers, 1, 1024);
  checkInteger('backlog', backlog, 1, 65_535);
  checkInteger('maxConnections', maxConnections, 1, 2 ** 24);
  checkInteger('retries', retries, 0, 1000);
  const times = { idleTimeout, keepAlive, connectTimeout, downTime };
  for (const [name, value] of Object.entries(times)) checkInteger(name, value, 0, 2 ** 31);
  const settings: Omit<Settings, 'targets'> = {
    method,
    balance,
    pipeSize,
    workers,
    backlog,
    connections: maxConnections,
    retries,
    ...times,
  };
  if (proxyProtocol !== undefined) settings.proxyProtocol = proxyProtocol;
  if (socketMode !== undefined) {
    checkInteger('socketMode', socketMode, 0, 0o777);
    if (readAddress('listen', options.listen ?? 0).path === undefined) {
      throw failure('ERR_ZEROSEND_INVALID_ARGUMENT', 'socketMode can only be used with a Unix socket');
    }
    settings.socketMode = socketMode;
  }
  return settings;
}

async function open(
  settings: Settings,
  listen: SocketAddress = 0,
  requests: readonly MirrorRequest[] = [],
  resolver?: TargetResolver,
  refresher?: NameRefresher,
): Promise<Relay> {
  const bindTo = await resolveAddress('listen', listen);
  const files = await openAll(
    requests.map(async ({ file }) => {
      if (file !== undefined) return requestHandle((number) => engine().openMirror(number, file.name, file.mode));
    }),
  );
  const mirrors = requests.map(({ file: _, ...mirror }, at): MirrorSettings => {
    const file = files[at];
    return file === undefined ? mirror : { ...mirror, file };
  });
  let handle = 0;
  let address: BoundAddress | undefined;
  let last: RelayStatistics | undefined;
  const closed = request(
    (number) => {
      const opened = engine().openRelay(number, { ...settings, mirrors, listen: bindTo });
      handle = opened.handle;
      address = opened.host === undefined ? { path: bindTo.path as string } : { host: opened.host, port: opened.port };
    },
    () => resolver?.resolveAll(handle),
  );
  // `openRelay` has thrown, so `closed` rejects with its error.
  if (address === undefined) {
    for (const file of files) if (file !== undefined) engine().release(file);
    await closed;
    throw new Error('unreachable');
  }
  const bound = address;
  refresher?.start(handle);
  return {
    address: bound,
    stats: () => last ?? engine().relayCounters(handle),
    async reopen() {
      if (last !== undefined) throw failure('ERR_ZEROSEND_CLOSED', 'the proxy is closed');
      await request((number) => engine().reopenMirrors(handle, number));
    },
    async close({ drain = 10_000 } = {}) {
      if (typeof drain !== 'number' || !(drain >= 0)) throw invalid('drain', drain, 'milliseconds from 0 up');
      if (last !== undefined) return;
      refresher?.stop();
      engine().closeRelay(handle, Math.min(drain, 2 ** 31));
      await closed;
      last ??= engine().relayCounters(handle);
      engine().release(handle);
    },
  };
}
