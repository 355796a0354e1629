/** `createProxy` and `createEchoServer`: bytes from socket to socket on native threads; JavaScript starts and watches. */
import { availableParallelism } from 'node:os';
import type { AddressSettings, MirrorSettings, RelaySettings, RelayTargetRequest, TargetSettings } from '#native';
import { ask, engine } from '../runtime/engine.js';
import { checkName, openAll, open as openFile } from '../runtime/output.js';
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
   * Where to listen. Default 0: a port of 127.0.0.1 that is free. A Unix socket that is there and that no process listens on is
   * replaced.
   */
  listen?: SocketAddress | undefined;
  /**
   * How bytes go: through a pipe of the kernel (`'splice'`), or through a buffer in user space (`'read-write'`). Default `'auto'`:
   * reads of less than 16 KiB through a buffer, where they cost less, and streams, and all that has mirrors, through a pipe.
   */
  method?: 'auto' | 'splice' | 'read-write' | undefined;
  /** Bytes of a pipe, a power of two of pages. Default 262,144: less CPU time for each byte than 65,536. */
  pipeSize?: number | undefined;
  /** Threads, 1 to 1,024. Default: as many as there are cores for this process. */
  workers?: number | undefined;
  /** Connections that wait to be accepted, listen(2). Default 4,096. */
  backlog?: number | undefined;
  /**
   * Permissions of the file of a Unix socket that is listened on, such as `0o660`: clients need the right to write. Default:
   * what the umask leaves, 0o755 as a rule.
   */
  socketMode?: number | undefined;
  /** Connections at once; more are closed. Default 65,536. */
  maxConnections?: number | undefined;
  /**
   * Milliseconds in which no byte comes from either side and none that was sent is taken: both sides are reset. Default 0: no
   * bound.
   */
  idleTimeout?: number | undefined;
  /**
   * Milliseconds without a segment from a TCP peer, after which it is probed (`SO_KEEPALIVE`), rounded up to seconds. A peer
   * that does not answer for the same time again is gone: its connection fails with `ETIMEDOUT`. Default 60,000; 0: not probed.
   */
  keepAlive?: number | undefined;
}

/** Who wants to go somewhere. Addresses are missing for clients that came by a Unix socket. */
export interface ProxyClient {
  remoteAddress?: string | undefined;
  remotePort?: number | undefined;
  /** The address that it has connected to. */
  localAddress?: string | undefined;
  localPort?: number | undefined;
  /** 0; after that, how many addresses were tried for it and did not answer. */
  attempt: number;
}

/** Says where a client goes to; `undefined`: nowhere, it is reset. */
export type ProxyTarget = (client: ProxyClient) => SocketAddress | undefined | Promise<SocketAddress | undefined>;

/** Who else gets the bytes of a direction. */
export type ProxyMirror = (
  | {
      /**
       * They are appended to this file, which is made if it is missing, or written to this FIFO or terminal. The streams of
       * connections that are open at once mix in it, piece by piece, and so do several mirrors with the same file, of one
       * or several proxies or processes; each piece is written once and whole.
       *
       * With variables in its name, each connection has a file: `{n}` is the number of the connection, from 1 up or from
       * the first number that no file has; `{time}` is when it was accepted (`20261126T185441.123Z`, UTC); `{client}` is its
       * address (`192.0.2.1_40000`, `unix`); `{id}` is an id that no other connection has, whichever proxy or process has
       * accepted it. A file with `{n}` in its name is always a new one; otherwise bytes are appended to what is there.
       */
      file: string;
      /** Permission bits of files that are made, less the umask. Default `0o600`. */
      mode?: number | undefined;
    }
  | {
      /**
       * They go to a server too, over a connection for each. What it answers is read and forgotten. It is connected to as a
       * target is: all addresses of a name in turn within `connectTimeout`, a full queue of a Unix socket waited for.
       */
      connect: SocketAddress;
    }
) & {
  /** From clients to targets, or back. Default `'up'`. */
  direction?: 'up' | 'down' | undefined;
  /**
   * What becomes of bytes that the mirror does not take in time, beyond the 256 KiB of its pipe (512 KiB for a file).
   * `'drop'`, the default: it misses them, and they are counted; the connection itself is never harmed, and bytes that the
   * mirror takes again later are written. `'block'`: the connection waits, and is reset when the mirror fails.
   */
  policy?: 'block' | 'drop' | undefined;
};

export interface ProxyOptions extends RelayOptions {
  /**
   * Where connections go to: one address, several to choose from, or a function that is asked for each connection, and
   * again when its address does not answer. Its answer has `connectTimeout` to come. All addresses of a name are tried in
   * turn, IPv4 and IPv6, within `connectTimeout`.
   */
  target: SocketAddress | readonly SocketAddress[] | ProxyTarget;
  /** Told when `target` throws or answers with no address; the client is reset. Default: a warning of the process. */
  onError?: ((error: Error, client: ProxyClient) => void) | undefined;
  /** Who else gets the bytes, 14 at most. Default: nobody. */
  mirror?: readonly ProxyMirror[] | undefined;
  /**
   * Milliseconds after which names of targets and of mirrors are looked up again. Default 30,000; 0: only at the start. When that fails, the
   * addresses stay as they are.
   */
  resolveInterval?: number | undefined;
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
  /** Connections that ended because the client was reset or failed otherwise; so the target was. */
  clientFailures: number;
  /** Connections that ended because the target was reset or failed otherwise; so the client was. */
  targetFailures: number;
  /** Mirrors of connections that were down or failed. */
  mirrorFailures: number;
  /** Connections cut by `close`. */
  forcedCloses: number;
  /** Connections whose bytes went through user space for want of pipes. */
  degraded: number;
  /** Bytes from clients. */
  bytesUp: number;
  /** Bytes to clients. */
  bytesDown: number;
  /** Bytes that mirrors got. */
  mirrored: number;
  /** Bytes that mirrors missed. */
  dropped: number;
  /** Connections ended by an error in this library. */
  panics: number;
}

/** A proxy or an echo server that listens. It keeps the process alive until it is closed. */
export interface Relay {
  /** Where it listens. */
  readonly address: BoundAddress;
  /** What it has counted; after `close` the last counts. */
  stats(): RelayStatistics;
  /**
   * Opens the files of mirrors by their names again, after they were renamed or deleted. Rejects with the errno's name when one
   * cannot be opened, which goes on with the file it has.
   */
  reopen(): Promise<void>;
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
  const { target, mirror = [], onError } = options ?? {};
  if (onError !== undefined && typeof onError !== 'function') throw invalid('onError', onError, 'a function');
  if (!Array.isArray(mirror)) throw invalid('mirror', mirror, 'an array of { file } and { connect }');
  if (mirror.length > MOST_MIRRORS) throw invalid('mirror', mirror, `at most ${MOST_MIRRORS} entries`);
  const settings = readOptions(options);
  const { resolveInterval = 30_000 } = options;
  checkInteger('resolveInterval', resolveInterval, 0, 2 ** 31 - 1);
  const wanted = await Promise.all(mirror.map((one: ProxyMirror, at) => readMirror(`mirror[${at}]`, one)));
  const names = new Names(resolveInterval);
  const servers = mirror.map((one: { connect?: SocketAddress }) => one.connect);
  names.add(servers, (...settings) => engine().setMirrorAddresses(...settings));
  if (typeof target === 'function') {
    return open({ ...settings, targets: [] }, options.listen, wanted, new Asked(target, onError), names);
  }
  const list = (Array.isArray(target) ? target : [target]) as readonly SocketAddress[];
  if (list.length === 0) throw invalid('target', target, 'at least one address');
  const targets = await Promise.all(list.map(async (one) => ({ addresses: await resolveTarget('target', one) })));
  names.add(list, (...settings) => engine().setTargetAddresses(...settings));
  return open({ ...settings, targets }, options.listen, wanted, undefined, names);
}

/** Gives back to each client what it sends: the smallest relay. Rejects as {@link createProxy} does. */
export async function createEchoServer(options: RelayOptions = {}): Promise<Relay> {
  return open(readOptions(options), options.listen);
}

type Settings = Omit<RelaySettings, 'listen' | 'mirrors'>;

/** A mirror whose options are checked; a file is not opened yet. */
interface Wanted extends Omit<MirrorSettings, 'file'> {
  file?: { name: string; mode: number };
}

const MOST_MIRRORS = 14;

/** The addresses of a target, its name looked up. */
async function resolveTarget(name: string, address: SocketAddress): Promise<AddressSettings[]> {
  const { path, port } = readAddress(name, address);
  if (path === undefined && port === 0) throw invalid(name, address, 'an address with a port from 1 up');
  return resolveAll(name, address);
}

/** Who learns of the addresses that a name has now: the native function for targets, or the one for mirrors. */
type Tell = (token: number, at: number, settings: TargetSettings) => void;

/** Looks up the names of targets and mirrors again and again. */
class Names {
  readonly #interval: number;
  readonly #named: { address: SocketAddress; at: number; tell: Tell }[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(interval: number) {
    this.#interval = interval;
  }

  /** Adds those of these addresses that are names. The others have their numbers only. */
  add(addresses: readonly (SocketAddress | undefined)[], tell: Tell): void {
    for (const [at, address] of addresses.entries()) {
      if (address !== undefined && hasName(readAddress('address', address))) this.#named.push({ address, at, tell });
    }
  }

  start(token: number): void {
    if (this.#interval === 0 || this.#named.length === 0) return;
    const resolve = async () => {
      for (const { address, at, tell } of this.#named) {
        const addresses = await resolveTarget('address', address).catch(() => undefined);
        if (this.#timer === undefined) return;
        if (addresses !== undefined) tell(token, at, { addresses });
      }
      this.#timer?.refresh();
    };
    this.#timer = setTimeout(() => void resolve(), this.#interval).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

async function readMirror(name: string, mirror: ProxyMirror): Promise<Wanted> {
  const defaults = { file: undefined, connect: undefined, mode: undefined };
  const { direction = 'up', policy = 'drop', file, connect, mode = 0o600 } = { ...defaults, ...mirror };
  parseEnum(`${name}.direction`, direction, ['up', 'down']);
  parseEnum(`${name}.policy`, policy, ['block', 'drop']);
  if ((file === undefined) === (connect === undefined)) throw invalid(name, mirror, '{ file } or { connect }');
  if (connect !== undefined) {
    return { direction, policy, connect: { addresses: await resolveTarget(`${name}.connect`, connect) } };
  }
  checkName(`${name}.file`, file);
  checkInteger(`${name}.mode`, mode, 0, 0o777);
  return { direction, policy, file: { name: file as string, mode } };
}

/** Asks the user's function where connections go to. */
class Asked {
  readonly #target: ProxyTarget;
  readonly #onError: (error: Error, client: ProxyClient) => void;

  constructor(target: ProxyTarget, onError: ProxyOptions['onError']) {
    this.#target = target;
    this.#onError = onError ?? ((error) => process.emitWarning(error));
  }

  takeFrom(token: number): void {
    for (const question of engine().takeTargetRequests(token)) void this.#answer(token, question);
  }

  async #answer(token: number, question: RelayTargetRequest): Promise<void> {
    const { worker, link, ...client } = question;
    let addresses: AddressSettings[] | undefined;
    try {
      const target = await this.#target(client);
      if (target !== undefined) addresses = await resolveTarget('result of target()', target);
    } catch (error) {
      this.#onError(error as Error, client);
    }
    try {
      engine().resolveTarget(token, question, addresses && { addresses });
    } catch (error) {
      // Closed meanwhile: the client is told by that.
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
  wanted: readonly Wanted[] = [],
  asked?: Asked,
  names?: Names,
): Promise<Relay> {
  const place = await resolveAddress('listen', listen);
  const files = await openAll(
    wanted.map(async ({ file }) => {
      if (file !== undefined) return openFile((request) => engine().openMirror(request, file.name, file.mode));
    }),
  );
  const mirrors = wanted.map(({ file: _, ...mirror }, at): MirrorSettings => {
    const file = files[at];
    return file === undefined ? mirror : { ...mirror, file };
  });
  let token = 0;
  let address: BoundAddress | undefined;
  let last: RelayStatistics | undefined;
  const ended = ask(
    (number) => {
      const opened = engine().openRelay(number, { ...settings, mirrors, listen: place });
      token = opened.token;
      address = opened.host === undefined ? { path: place.path as string } : { host: opened.host, port: opened.port };
    },
    () => asked?.takeFrom(token),
  );
  // A refusal is thrown at once; the end comes later and is nobody's failure.
  if (address === undefined) {
    for (const file of files) if (file !== undefined) engine().release(file);
    await ended;
    throw new Error('unreachable');
  }
  const bound = address;
  names?.start(token);
  return {
    address: bound,
    stats: () => last ?? engine().relayCounters(token),
    async reopen() {
      if (last !== undefined) throw failure('ERR_ZEROSEND_CLOSED', 'the proxy is closed');
      await ask((number) => engine().reopenMirrors(token, number));
    },
    async close({ drain = 10_000 } = {}) {
      if (typeof drain !== 'number' || !(drain >= 0)) throw invalid('drain', drain, 'milliseconds from 0 up');
      if (last !== undefined) return;
      names?.stop();
      engine().closeRelay(token, Math.min(drain, 2 ** 31));
      await ended;
      last ??= engine().relayCounters(token);
      engine().release(token);
    },
  };
}
