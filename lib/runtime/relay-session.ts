/** Sessions: native threads that relay between sockets and pipes of JavaScript. */
import type { ErrnoName, RelayReport, SessionRelaySettings, SessionSettings } from '#native';
import { aborted, failure, invalid, type ZerosendError } from '../util/errors.js';
import { checkInteger, parseEnum } from '../util/options.js';
import { closeRequest, engine, openRequest, requestValue } from './engine.js';
import type { SessionEndpoint } from './session-endpoint.js';

export interface RelaySessionOptions {
  /**
   * How bytes are moved: through a pipe of the kernel (`'splice'`) or through a buffer in user space (`'read-write'`). Default
   * `'auto'`: reads of less than 16 KiB through a buffer, which costs less, and streams through a pipe.
   */
  method?: 'auto' | 'splice' | 'read-write' | undefined;
  /** Bytes of a pipe, a power of two of pages. Default 262,144. */
  pipeSize?: number | undefined;
  /** Milliseconds without a byte after which it fails with `ERR_ZEROSEND_TIMEOUT`. Default 0: no limit. */
  idleTimeout?: number | undefined;
  /**
   * Milliseconds without a segment from a TCP peer until it is probed, rounded up to seconds. If it does not answer for the same
   * time again, the relay fails with `ETIMEDOUT`. A socket that already has `SO_KEEPALIVE` keeps its settings. Default 60,000;
   * 0: no probes.
   */
  keepAlive?: number | undefined;
  /** Aborts with `ABORT_ERR`; sockets are reset. */
  signal?: AbortSignal | undefined;
}

/** A native relay for sessions with the same settings. */
interface SessionRelay {
  handle: number;
  /** Running sessions; without any the relay is closed. */
  sessions: number;
}

/** By their settings as JSON. */
const relays = new Map<string, SessionRelay>();

/** Checks the options. */
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
 * Runs a session. Before this function returns it calls `session`, once the thread runs, and then `onStart` with a function that
 * closes the session.
 */
export async function spliceSockets(
  settings: SessionRelaySettings,
  session: () => SessionSettings,
  onStart: (cancel: () => void) => void,
): Promise<RelayReport> {
  const { handle, release } = acquireRelay(settings);
  try {
    let id = 0;
    const finished = requestValue<RelayReport>((number) => {
      id = engine().startSession(handle, number, session());
    });
    onStart(() => engine().cancelSession(handle, id));
    return await finished;
  } finally {
    release();
  }
}

/** The relay with these settings, started if necessary. Throws if its thread cannot start, for example `EMFILE`. */
function acquireRelay(settings: SessionRelaySettings): { handle: number; release: () => void } {
  const key = JSON.stringify(settings);
  const relay = relays.get(key) ?? { handle: openRelay(settings), sessions: 0 };
  relays.set(key, relay);
  relay.sessions += 1;
  const release = () => {
    relay.sessions -= 1;
    if (relay.sessions > 0) return;
    relays.delete(key);
    engine().release(relay.handle);
  };
  return { handle: relay.handle, release };
}

function openRelay(settings: SessionRelaySettings): number {
  const number = openRequest(() => {});
  try {
    return engine().openSessionRelay(number, settings);
  } catch (error) {
    closeRequest(number);
    throw error;
  }
}

/** The error of a session that did not complete. */
export function sessionError(
  report: RelayReport,
  nameOf: (endpoint: number) => string,
  { idleTimeout, signal }: { idleTimeout?: number | undefined; signal?: AbortSignal | undefined },
  closed: SessionEndpoint | undefined,
): ZerosendError | undefined {
  switch (report.outcome) {
    case 'complete':
      return undefined;
    case 'idle':
      return failure(
        'ERR_ZEROSEND_TIMEOUT',
        `no bytes transferred for ${idleTimeout} ms: raise \`idleTimeout\` if this is expected`,
      );
    case 'aborted':
      if (closed !== undefined) return closed.closedError();
      return signal?.aborted ? aborted(signal) : failure('ERR_ZEROSEND_CLOSED', 'the relay was closed');
    case 'failed':
      return systemError(nameOf(report.endpoint as number), report.failure as ErrnoName);
  }
}

/** The error of an endpoint. */
export function systemError(side: string, { code, errno, meaning }: ErrnoName): ZerosendError {
  return Object.assign(new Error(`${code}: ${meaning}, at ${side}`), { code, errno, side });
}
