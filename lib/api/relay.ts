/** `relay`: joins two sockets that exist. */
import type { Socket } from 'node:net';

import { within } from '../runtime/bounds.js';
import {
  failureOf,
  NOT_READY,
  type RelaySessionOptions,
  readSessionOptions,
  SessionEndpoint,
  spliceSockets,
} from '../runtime/relay-session.js';
import { reset } from '../runtime/reset.js';
import { aborted, invalid } from '../util/errors.js';

/** A plain `net.Socket` (TCP or Unix), or the descriptor of a stream socket. */
export type RelaySocket = Socket | number;

export interface RelayResult {
  /** Bytes from `a` to `b`. */
  aToB: number;
  /** Bytes from `b` to `a`. */
  bToA: number;
  /** Wall time in milliseconds. */
  durationMs: number;
}

/**
 * Joins two sockets on a native thread, in both directions, until both have ended: a half-close ends one direction, a
 * reset both. What Node had read of one goes to the other first; what was written to one before goes out first.
 *
 * A `net.Socket` belongs to the relay from the call on, in whatever state it is: no listener gets a byte of it, its timeout is
 * taken away, and it is destroyed at the end, by a reset unless all bytes were passed on. Destroying one ends the relay. A
 * descriptor stays the caller's to close.
 *
 * Rejects with the errno's name (`ECONNRESET`, `EPIPE`, `EMFILE`, ...), `ERR_ZEROSEND_TIMEOUT`, `ERR_ZEROSEND_CLOSED` or
 * `ABORT_ERR`; `error.side` is the one that has failed, `error.aToB` and `error.bToA` say how much went before.
 *
 * Sockets that it refuses are left as they were: `ERR_ZEROSEND_INVALID_ARGUMENT` for those of TLS, wrapped ones, those that give
 * text (`setEncoding`) and those of an HTTP request before its `'upgrade'` or `'connect'` (use stream.pipeline there),
 * `ERR_ZEROSEND_CLOSED` for closed and ended ones, `ERR_ZEROSEND_BUSY` for one that is read already.
 */
export async function relay(a: RelaySocket, b: RelaySocket, options: RelaySessionOptions = {}): Promise<RelayResult> {
  const settings = readSessionOptions(options);
  const { signal, idleTimeout } = options;
  if (a === b) throw invalid('b', b, 'another socket than a');
  if (signal?.aborted) throw aborted(signal);
  const started = performance.now();
  const ends = SessionEndpoint.all([
    () => new SessionEndpoint('a', a, true, true),
    () => new SessionEndpoint('b', b, true, true),
  ]);
  let complete = false;
  try {
    const ready = Promise.all(ends.map((end) => end.ready()));
    await within(ready, { signal, timeout: idleTimeout, reason: NOT_READY }, () => {});
    const gone = ends.find((end) => end.socket?.destroyed);
    if (gone !== undefined) throw gone.gone();
    const [client, target] = ends as [SessionEndpoint, SessionEndpoint];
    let onAbort = () => {};
    const report = await spliceSockets(
      settings,
      () => {
        const [initialUp, initialDown] = [client.takeBuffered(), target.takeBuffered()];
        return {
          client: client.token,
          target: target.token,
          oneWay: false,
          mirrors: [],
          policy: 'block',
          ...(initialUp ? { initialUp } : {}),
          ...(initialDown ? { initialDown } : {}),
        };
      },
      (cancel) => {
        for (const end of ends) end.watch(cancel);
        onAbort = cancel;
        signal?.addEventListener('abort', cancel, { once: true });
      },
    ).finally(() => signal?.removeEventListener('abort', onAbort));
    const result = { aToB: report.up, bToA: report.down, durationMs: performance.now() - started };
    const closed = ends.find((end) => end.closed);
    const error = failureOf(report, (endpoint) => (endpoint === -2 ? 'a' : 'b'), options, closed);
    if (error !== undefined) throw Object.assign(error, result);
    complete = true;
    return result;
  } catch (error) {
    throw Object.assign(error as Error, { aToB: 0, bToA: 0, ...(error as Partial<RelayResult>) });
  } finally {
    for (const { socket } of ends) {
      if (socket !== undefined && !complete) reset(socket);
      else socket?.destroy();
    }
    for (const end of ends) end.giveBack();
  }
}
