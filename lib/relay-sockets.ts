/** `relay`: joins two sockets that exist. */
import type { Socket } from 'node:net';

import { engine } from './engine.js';
import { aborted } from './errors.js';
import { End, failureOf, type JoinOptions, join, readJoinOptions, type Taken } from './joiner.js';

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
 * A `net.Socket` belongs to the relay from the call on: it is not read, its timeout is taken away, and it is destroyed at
 * the end. Destroying one ends the relay. A descriptor stays the caller's to close.
 *
 * Rejects with the errno's name (`ECONNRESET`, `EPIPE`, ...), `ERR_ZEROSEND_TIMEOUT`, `ERR_ZEROSEND_CLOSED` or
 * `ABORT_ERR`; `error.side` is the one that has failed, `error.aToB` and `error.bToA` say how much went before. Throws
 * `ERR_ZEROSEND_INVALID_ARGUMENT` for sockets of TLS and for wrapped ones: use stream.pipeline there.
 */
export async function relay(a: RelaySocket, b: RelaySocket, options: JoinOptions = {}): Promise<RelayResult> {
  const settings = readJoinOptions(options);
  const { signal } = options;
  if (signal?.aborted) throw aborted(signal);
  // Before anything is done to the sockets.
  engine();
  const started = performance.now();
  const ends: End[] = [];
  let onAbort = () => {};
  try {
    ends.push(new End('a', a, true, true));
    ends.push(new End('b', b, true, true));
    const [client, target] = (await Promise.all(ends.map((end) => end.take()))) as [Taken, Taken];
    const report = await join(
      settings,
      {
        client: client.token,
        target: target.token,
        oneWay: false,
        sinks: [],
        policy: 'block',
        ...(client.before ? { firstUp: client.before } : {}),
        ...(target.before ? { firstDown: target.before } : {}),
      },
      (cancel) => {
        for (const end of ends) end.watch(cancel);
        onAbort = cancel;
        signal?.addEventListener('abort', cancel, { once: true });
        if (signal?.aborted) cancel();
      },
    );
    const result = { aToB: report.up, bToA: report.down, durationMs: performance.now() - started };
    const closed = ends.find((end) => end.closed);
    const error = failureOf(report, (party) => (party === -2 ? 'a' : 'b'), options, closed);
    if (error !== undefined) throw Object.assign(error, result);
    return result;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    for (const end of ends) {
      end.socket?.destroy();
      end.giveBack();
    }
  }
}
