/** Native threads that join sockets and pipes which JavaScript has. */
import { once } from 'node:events';
import { Socket } from 'node:net';

import { checkPeer } from './deliver.js';
import { ask, engine } from './engine.js';
import { aborted, failure, invalid, type ZerosendError } from './errors.js';
import { hold, writeThrough } from './hold.js';
import { descriptor, hasQueuedBytes, takeReading } from './internals.js';
import type { ErrnoName, JoinerSettings, JoinReport, JoinSettings } from './native.js';
import { oneOf } from './options.js';
import { checkInteger } from './server-options.js';

export interface JoinOptions {
  /**
   * How bytes go: through a pipe of the kernel (`'splice'`), or through a buffer in user space (`'read-write'`). Default `'auto'`:
   * reads of less than 16 KiB through a buffer, where they cost less, and streams through a pipe.
   */
  method?: 'auto' | 'splice' | 'read-write' | undefined;
  /** Bytes of a pipe, a power of two of pages. Default 262,144. */
  pipeSize?: number | undefined;
  /** Milliseconds without a byte until it fails with `ERR_ZEROSEND_TIMEOUT`. Default 0: no bound. */
  idleTimeout?: number | undefined;
  /** Cancels at once, with `ABORT_ERR`; sockets are reset. */
  signal?: AbortSignal | undefined;
}

interface Joiner {
  token: number;
  joins: number;
}

const joiners = new Map<string, Joiner>();

/** Checks options. */
export function readJoinOptions(options: JoinOptions): JoinerSettings {
  const { method = 'auto', pipeSize = 262_144, idleTimeout = 0, signal } = options;
  oneOf('method', method, ['auto', 'splice', 'read-write']);
  checkInteger('pipeSize', pipeSize, 4096, 2 ** 30);
  checkInteger('idleTimeout', idleTimeout, 0, 2 ** 31);
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalid('signal', signal, 'an AbortSignal');
  return { method, pipeSize, idleTimeout };
}

/** Joins on the thread for such joins, which lives while there are any. `cancel` is given what ends it. */
export async function join(
  settings: JoinerSettings,
  what: JoinSettings,
  cancel: (cancel: () => void) => void,
): Promise<JoinReport> {
  const key = JSON.stringify(settings);
  let joiner = joiners.get(key);
  if (joiner === undefined) {
    let token = 0;
    ask((number) => {
      token = engine().openJoiner(number, settings);
    }).catch(() => {});
    // Without a token the next call says why.
    joiner = { token, joins: 0 };
    joiners.set(key, joiner);
  }
  const { token } = joiner;
  joiner.joins += 1;
  try {
    let name = 0;
    const joined = ask((number) => {
      name = engine().join(token, number, what);
    });
    cancel(() => engine().cancelJoin(token, name));
    return (await joined).join as JoinReport;
  } finally {
    joiner.joins -= 1;
    if (joiner.joins === 0) {
      joiners.delete(key);
      engine().closeJoiner(token);
    }
  }
}

/** An end that a join has: a duplicate of its descriptor, and what Node had read of it. */
export interface Taken {
  token: number;
  before: Buffer | undefined;
}

/** A socket or descriptor on its way into a join. */
export class End {
  readonly name: string;
  readonly socket: Socket | undefined;
  /** Of a duplicate; a join uses it up. */
  #token: number | undefined;
  readonly #reading: ReturnType<typeof takeReading> | undefined;
  readonly #release: (() => void) | undefined;
  #onClose = () => {};
  /** It was closed from JavaScript meanwhile. */
  closed = false;

  /** Checks it, and stops Node from reading it (`reads`) and writing to it (`writes`). */
  constructor(name: string, peer: Socket | number, reads: boolean, writes: boolean) {
    checkPeer(name, peer);
    this.name = name;
    if (!(peer instanceof Socket)) {
      this.#token = engine().holdTarget(peer);
      return;
    }
    this.socket = peer;
    if (writes && peer.writableEnded) {
      throw failure('ERR_ZEROSEND_CLOSED', `the ${name} socket was ended; join it before you end it`);
    }
    if (reads) this.#reading = takeReading(peer, undefined);
    if (writes) this.#release = hold(peer);
    // Node sees no bytes from here on.
    if (reads && writes) peer.setTimeout(0);
  }

  /** Waits until it is connected and Node has nothing more to write, and duplicates its descriptor. */
  async take(): Promise<Taken> {
    const { socket } = this;
    if (socket === undefined) return { token: this.#token as number, before: undefined };
    if (socket.connecting) await once(socket, 'connect');
    if (this.#release !== undefined && !socket.destroyed && hasQueuedBytes(socket)) {
      await new Promise<void>((resolve, reject) => {
        writeThrough(socket, '', (error) => (error ? reject(error) : resolve()));
      });
    }
    if (socket.destroyed) throw this.gone();
    this.#token = engine().holdTarget(descriptor(socket));
    return { token: this.#token, before: this.#reading?.before };
  }

  /** Calls `cancel` when it is closed from JavaScript. */
  watch(cancel: () => void): void {
    this.#onClose = () => {
      this.closed = true;
      cancel();
    };
    this.socket?.once('close', this.#onClose);
  }

  /** Lets Node have it again. */
  giveBack(): void {
    this.socket?.off('close', this.#onClose);
    this.#reading?.giveBack();
    this.#release?.();
    if (this.#token !== undefined) engine().release(this.#token);
  }

  gone(): ZerosendError {
    const error = failure('ERR_ZEROSEND_CLOSED', `the ${this.name} socket was closed`);
    return Object.assign(error, { side: this.name });
  }
}

/** Why a join has not come to its end; `undefined` when it has. */
export function failureOf(
  report: JoinReport,
  side: (party: number) => string,
  { idleTimeout, signal }: { idleTimeout?: number | undefined; signal?: AbortSignal | undefined },
  closed: End | undefined,
): ZerosendError | undefined {
  switch (report.outcome) {
    case 'complete':
      return undefined;
    case 'idle':
      return failure('ERR_ZEROSEND_TIMEOUT', `no byte came or went for ${idleTimeout} ms`);
    case 'cut':
      if (closed !== undefined) return closed.gone();
      return signal?.aborted ? aborted(signal) : failure('ERR_ZEROSEND_CLOSED', 'it was closed');
    case 'failed':
      return systemError(side(report.party as number), report.failure as ErrnoName);
  }
}

/** The failure of one side. */
export function systemError(side: string, { code, errno, meaning }: ErrnoName): ZerosendError {
  return Object.assign(new Error(`${code}: ${meaning}, at ${side}`), { code, errno, side });
}
