/** Transfers to (or from) the same socket or descriptor run one after another. */
import type { Socket } from 'node:net';

import { type Bounds, within } from './bounds.js';

/** The transfers to (or from) one socket or descriptor. */
interface Queue {
  /** Settles when all of them have ended. */
  last: Promise<unknown>;
  /** The time (`performance.now()`) of the last progress. */
  lastProgress: number;
}

/** A second transfer to (or from) the same socket or descriptor waits for the first. */
export type Queues = Map<Socket | number, Queue>;

/**
 * Runs `task` after all earlier tasks of `peer` have settled. While it waits, `bounds` apply; if a bound is reached, the task is
 * not run. The task calls its argument to report progress.
 */
export async function inOrder<T>(
  queues: Queues,
  peer: Socket | number,
  bounds: Bounds,
  task: (onMoved: () => void) => Promise<T>,
): Promise<T> {
  const queue = queues.get(peer) ?? { last: Promise.resolve(), lastProgress: 0 };
  const waits = queues.has(peer);
  queues.set(peer, queue);
  let settle = () => {};
  const before = queue.last;
  const settled = new Promise<void>((resolve) => {
    settle = resolve;
  });
  // A later task waits for all earlier ones, also when this one reaches a bound.
  const last = before.then(() => settled);
  queue.last = last;
  try {
    if (waits) await within(before, { ...bounds, lastProgress: () => queue.lastProgress }, () => {});
    queue.lastProgress = performance.now();
    return await task(() => {
      queue.lastProgress = performance.now();
    });
  } finally {
    settle();
    last.then(() => {
      if (queue.last === last) queues.delete(peer);
    });
  }
}
