/** Limits the bytes that all pumps send in one iteration of the event loop, so that many downloads do not block it. */

/** Maximum of bytes of all pumps in one iteration. With 8 MiB the throughput was the same, but the delay of the loop higher. */
const BUDGET = 1024 * 1024;

type Turn = () => void;

let left = BUDGET;
let isScheduled = false;
let waiting: Turn[] = [];

/** Runs `turn` now if the budget is not spent, otherwise in a later iteration, after the turns that are waiting. */
export function schedule(turn: Turn): void {
  if (left > 0 && waiting.length === 0) {
    turn();
  } else {
    waiting.push(turn);
    scheduleNext();
  }
}

/** Runs `turn` in a later iteration. */
export function runLater(turn: Turn): void {
  waiting.push(turn);
  scheduleNext();
}

/** Subtracts bytes that were sent. */
export function spend(bytes: number): void {
  left -= bytes;
  scheduleNext();
}

function scheduleNext(): void {
  if (isScheduled) return;
  isScheduled = true;
  setImmediate(nextIteration);
}

function nextIteration(): void {
  isScheduled = false;
  left = BUDGET;
  const turns = waiting;
  waiting = [];
  let next = 0;
  // A turn that schedules another adds it to `waiting`, for the next iteration.
  while (next < turns.length && left > 0) (turns[next++] as Turn)();
  if (next < turns.length) {
    waiting = turns.slice(next).concat(waiting);
    scheduleNext();
  }
}
