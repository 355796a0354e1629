/** Native threads that join sockets and pipes which JavaScript has. */
import { Socket } from 'node:net';
import type { ErrnoName, RelayReport, SessionRelaySettings, SessionSettings } from '#native';
import { interceptWrites, writeThrough } from '../node/intercept-writes.js';
import { descriptor, hasQueuedBytes } from '../node/node-internals.js';
import { StoppedReading } from '../node/socket-reading.js';
import { aborted, failure, invalid, type ZerosendError } from '../util/errors.js';
import { checkInteger, parseEnum } from '../util/options.js';
import { connected } from './bounds.js';
import { checkPeer, checkSource } from './deliver.js';
import { ask, engine, forget, request } from './engine.js';

export interface RelaySessionOptions {
  /**
   * How bytes go: through a pipe of the kernel (`'splice'`), or through a buffer in user space (`'read-write'`). Default `'auto'`:
   * reads of less than 16 KiB through a buffer, where they cost less, and streams through a pipe.
   */
  method?: 'auto' | 'splice' | 'read-write' | undefined;
  /** Bytes of a pipe, a power of two of pages. Default 262,144. */
  pipeSize?: number | undefined;
  /** Milliseconds without a byte until it fails with `ERR_ZEROSEND_TIMEOUT`. Default 0: no bound. */
  idleTimeout?: number | undefined;
  /**
   * Milliseconds without a segment from a TCP peer, after which it is probed, rounded up to seconds; without an answer for the
   * same time again it fails with `ETIMEDOUT`. A socket that has `SO_KEEPALIVE` already keeps its own times. Default 60,000; 0:
   * not probed.
   */
  keepAlive?: number | undefined;
  /** Cancels at once, with `ABORT_ERR`; sockets are reset. */
  signal?: AbortSignal | undefined;
}

interface Joiner {
  token: number;
  joins: number;
}

const joiners = new Map<string, Joiner>();

/** Checks options. */
export function readSessionOptions(options: RelaySessionOptions): SessionRelaySettings {
  const { method = 'auto', pipeSize = 262_144, idleTimeout = 0, keepAlive = 60_000, signal } = options;
  parseEnum('method', method, ['auto', 'splice', 'read-write']);
  checkInteger('pipeSize', pipeSize, 4096, 2 ** 30);
  checkInteger('idleTimeout', idleTimeout, 0, 2 ** 31);
  checkInteger('keepAlive', keepAlive, 0, 2 ** 31);
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalid('signal', signal, 'an AbortSignal');
  return { method, pipeSize, idleTimeout, keepAlive };
}

/**
 * Joins on the thread for such joins, which lives while there are any. `what` is called when that is running, in the call of
 * this function. `cancel` is given what ends it.
 */
export async function spliceSockets(
  settings: SessionRelaySettings,
  what: () => SessionSettings,
  cancel: (cancel: () => void) => void,
): Promise<RelayReport> {
  const { joiner, leave } = enter(settings);
  try {
    let name = 0;
    const joined = ask((number) => {
      name = engine().startSession(joiner, number, what());
    });
    cancel(() => engine().cancelSession(joiner, name));
    return (await joined).session as RelayReport;
  } finally {
    leave();
  }
}

/** The thread for joins with these settings, started if there is none. Throws what keeps it from starting, such as `EMFILE`. */
function enter(settings: SessionRelaySettings): { joiner: number; leave: () => void } {
  const key = JSON.stringify(settings);
  const joiner = joiners.get(key) ?? { token: start(settings), joins: 0 };
  joiners.set(key, joiner);
  joiner.joins += 1;
  const leave = () => {
    joiner.joins -= 1;
    if (joiner.joins > 0) return;
    joiners.delete(key);
    engine().closeSessionRelay(joiner.token);
  };
  return { joiner: joiner.token, leave };
}

function start(settings: SessionRelaySettings): number {
  const number = request(() => {});
  try {
    return engine().openSessionRelay(number, settings);
  } catch (error) {
    forget(number);
    throw error;
  }
}

/** What the time until the ends are ready is spent on. */
export const NOT_READY = 'a socket is not connected, or does not take what was written to it before';

/** A socket or descriptor on its way into a join. */
export class SessionEndpoint {
  readonly name: string;
  readonly socket: Socket | undefined;
  readonly #reads: boolean;
  readonly #writes: boolean;
  /** Of a duplicate; a join uses it up. */
  #token: number | undefined;
  #reading: StoppedReading | undefined;
  #release: (() => void) | undefined;
  #onClose = () => {};
  /** It was closed from JavaScript meanwhile. */
  closed = false;

  /**
   * Checks it and duplicates its descriptor, unless it is still connecting. Nothing has happened to a socket when this throws.
   *
   * @param reads the join reads it: Node is to stop, see {@link SessionEndpoint.hold}
   * @param writes the join writes to it
   */
  constructor(name: string, peer: Socket | number, reads: boolean, writes: boolean) {
    if (reads) checkSource(name, peer);
    else checkPeer(name, peer);
    this.name = name;
    this.#reads = reads;
    this.#writes = writes;
    if (!(peer instanceof Socket)) {
      this.#token = engine().holdTarget(peer);
      return;
    }
    this.socket = peer;
    if (writes && peer.writableEnded) {
      throw failure('ERR_ZEROSEND_CLOSED', `the ${name} socket was ended; join it before you end it`);
    }
    if (!peer.connecting) this.#token = engine().holdTarget(descriptor(peer));
  }

  /** Checks several, and holds all of them or none. */
  static all(make: Array<() => SessionEndpoint>): SessionEndpoint[] {
    const ends: SessionEndpoint[] = [];
    try {
      for (const one of make) ends.push(one());
      for (const end of ends) end.hold();
      return ends;
    } catch (error) {
      for (const end of ends) end.giveBack();
      throw error;
    }
  }

  /** Stops Node from reading it and from writing to it. */
  hold(): this {
    const { socket } = this;
    if (socket === undefined) return this;
    if (this.#reads) this.#reading = new StoppedReading(socket);
    if (this.#writes) this.#release = interceptWrites(socket);
    // Node sees no bytes from here on.
    if (this.#reads && this.#writes) socket.setTimeout(0);
    return this;
  }

  /** Waits until it is connected and Node has nothing more to write. */
  async ready(): Promise<void> {
    const { socket } = this;
    if (socket === undefined) return;
    await connected(socket, () => this.gone());
    if (this.#release !== undefined && !socket.destroyed && hasQueuedBytes(socket)) {
      await new Promise<void>((resolve, reject) => {
        writeThrough(socket, '', (error) => (error ? reject(this.#failureOf(error)) : resolve()));
      });
    }
    if (socket.destroyed) throw this.gone();
    this.#token ??= engine().holdTarget(descriptor(socket));
  }

  /** Node has seen the end of it: that it closes the socket then takes no bytes away. */
  get isOver(): boolean {
    return this.#reads && this.socket?.readableEnded === true;
  }

  /** The token of the duplicate. */
  get token(): number {
    return this.#token as number;
  }

  /** Removes what Node has read of it. */
  takeBuffered(): Buffer | undefined {
    return this.#reading?.take();
  }

  /** Calls `cancel` when it is closed from JavaScript. */
  watch(cancel: () => void): void {
    this.#onClose = () => {
      if (this.isOver && !this.#writes) return;
      this.closed = true;
      cancel();
    };
    this.socket?.once('close', this.#onClose);
  }

  /** Lets Node have it again. `bytes`: what was taken from it and is to be read by Node after all. */
  giveBack(bytes?: Buffer): void {
    this.socket?.off('close', this.#onClose);
    this.#reading?.giveBack(bytes);
    this.#release?.();
    if (this.#token !== undefined) engine().release(this.#token);
  }

  gone(): ZerosendError {
    const error = failure('ERR_ZEROSEND_CLOSED', `the ${this.name} socket was closed`);
    return Object.assign(error, { side: this.name });
  }

  #failureOf(error: Error): Error {
    const { code } = error as ZerosendError;
    if (code === 'ERR_STREAM_DESTROYED' || code === 'ECANCELED') return this.gone();
    return Object.assign(error, { side: this.name });
  }
}

/** Why a join has not come to its end; `undefined` when it has. */
export function failureOf(
  report: RelayReport,
  side: (endpoint: number) => string,
  { idleTimeout, signal }: { idleTimeout?: number | undefined; signal?: AbortSignal | undefined },
  closed: SessionEndpoint | undefined,
): ZerosendError | undefined {
  switch (report.outcome) {
    case 'complete':
      return undefined;
    case 'idle':
      return failure('ERR_ZEROSEND_TIMEOUT', `no byte came or went for ${idleTimeout} ms`);
    case 'aborted':
      if (closed !== undefined) return closed.gone();
      return signal?.aborted ? aborted(signal) : failure('ERR_ZEROSEND_CLOSED', 'it was closed');
    case 'failed':
      return systemError(side(report.endpoint as number), report.failure as ErrnoName);
  }
}

/** The failure of one side. */
export function systemError(side: string, { code, errno, meaning }: ErrnoName): ZerosendError {
  return Object.assign(new Error(`${code}: ${meaning}, at ${side}`), { code, errno, side });
}
