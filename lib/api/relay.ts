/** `relay`: relays between two open sockets. */
import type { Socket } from 'node:net';

import { within } from '../runtime/bounds.js';
import { type RelaySessionOptions, readSessionOptions, sessionError, spliceSockets } from '../runtime/relay-session.js';
import { reset } from '../runtime/reset.js';
import { NOT_READY, SessionEndpoint } from '../runtime/session-endpoint.js';
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
 * Relays between two sockets in both directions, on a native thread, until both have ended. A half-close ends one direction; a
 * reset of one socket resets the other. Bytes that Node has already read from one socket are written to the other first, and
 * earlier writes to a socket are flushed first.
 *
 * From the call on a `net.Socket` belongs to the relay, in any state: it emits no more data, its timeout is removed, and it is
 * destroyed at the end, with a reset unless all bytes were relayed. Destroying one socket ends the relay. Descriptors stay open.
 *
 * Rejects with the name of an errno (`ECONNRESET`, `EPIPE`, `EMFILE`, ...), `ERR_ZEROSEND_TIMEOUT`, `ERR_ZEROSEND_CLOSED` or
 * `ABORT_ERR`. `error.side` names the socket that has failed; `error.aToB` and `error.bToA` are the bytes relayed before.
 *
 * Leaves sockets unchanged that it refuses: with `ERR_ZEROSEND_INVALID_ARGUMENT` TLS sockets, wrapped ones, those with
 * `setEncoding`, and those of an HTTP request before its `'upgrade'` or `'connect'` event (use stream.pipeline for them); with
 * `ERR_ZEROSEND_CLOSED` closed and ended ones; with `ERR_ZEROSEND_BUSY` one that another operation reads.
 */
export async function relay(a: RelaySocket, b: RelaySocket, options: RelaySessionOptions = {}): Promise<RelayResult> {
  const settings = readSessionOptions(options);
  const { signal, idleTimeout } = options;
  if (a === b) throw invalid('b', b, 'another socket than a');
  if (signal?.aborted) throw aborted(signal);
  const started = performance.now();
  const endpoints = SessionEndpoint.all([
    () => new SessionEndpoint('a', a, true, true),
    () => new SessionEndpoint('b', b, true, true),
  ]);
  let complete = false;
  try {
    const ready = Promise.all(endpoints.map((endpoint) => endpoint.ready()));
    await within(ready, { signal, timeout: idleTimeout, reason: NOT_READY }, () => {});
    const destroyed = endpoints.find((endpoint) => endpoint.socket?.destroyed);
    if (destroyed !== undefined) throw destroyed.closedError();
    const [client, target] = endpoints as [SessionEndpoint, SessionEndpoint];
    let onAbort = () => {};
    const report = await spliceSockets(
      settings,
      () => {
        const [initialUp, initialDown] = [client.takeBuffered(), target.takeBuffered()];
        return {
          client: client.handle,
          target: target.handle,
          oneWay: false,
          mirrors: [],
          policy: 'block',
          ...(initialUp ? { initialUp } : {}),
          ...(initialDown ? { initialDown } : {}),
        };
      },
      (cancel) => {
        for (const endpoint of endpoints) endpoint.onClosed(cancel);
        onAbort = cancel;
        signal?.addEventListener('abort', cancel, { once: true });
      },
    ).finally(() => signal?.removeEventListener('abort', onAbort));
    const result = { aToB: report.up, bToA: report.down, durationMs: performance.now() - started };
    const closed = endpoints.find((endpoint) => endpoint.closed);
    const error = sessionError(report, (endpoint) => (endpoint === -2 ? 'a' : 'b'), options, closed);
    if (error !== undefined) throw Object.assign(error, result);
    complete = true;
    return result;
  } catch (error) {
    throw Object.assign(error as Error, { aToB: 0, bToA: 0, ...(error as Partial<RelayResult>) });
  } finally {
    for (const { socket } of endpoints) {
      if (socket !== undefined && !complete) reset(socket);
      else socket?.destroy();
    }
    for (const endpoint of endpoints) endpoint.release();
  }
}
