/**
 * Who may send when: a bound on the bytes that all pumps together send in one round of the event loop, so that
 * downloads, however many, leave the loop to everybody else in between.
 */

/** Bytes all pumps together may send in a round of the event loop: from 1 to 8 MiB the throughput was the same, the delay was not. */
const ROUND = 1024 * 1024;

type Turn = () => void;

let left = ROUND;
let armed = false;
let waiting: Turn[] = [];

/** Runs `turn` now if the round still has bytes, else in a later round, after those that wait already. */
export function schedule(turn: Turn): void {
  if (left > 0 && waiting.length === 0) {
    turn();
  } else {
    waiting.push(turn);
    arm();
  }
}

/** Runs `turn` in a later round. */
export function later(turn: Turn): void {
  waiting.push(turn);
  arm();
}

/** Takes note of bytes that were sent. */
export function spend(bytes: number): void {
  left -= bytes;
  arm();
}

function arm(): void {
  if (armed) return;
  armed = true;
  setImmediate(nextRound);
}

function nextRound(): void {
  armed = false;
  left = ROUND;
  const turns = waiting;
  waiting = [];
  let next = 0;
  // A turn that asks for another goes to the end of `waiting`, into the next round.
  while (next < turns.length && left > 0) (turns[next++] as Turn)();
  if (next < turns.length) {
    waiting = turns.slice(next).concat(waiting);
    arm();
  }
}
