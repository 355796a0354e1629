/**
 * A socket that takes no more: `sendfile` says EAGAIN (here: `null`), and whoever waits must not be the thread that others need.
 * First by hand, with the system call itself; then fifty slow receivers at once, while the event loop goes on.
 *
 *   npx tsx examples/2-sendfile/non-blocking.ts
 *
 * Look for: how much fits before `null`, and that the event loop is late by milliseconds only, with fifty transfers waiting.
 *
 *   sendfile(2) took 4160512 bytes in 1 calls, then null: the socket is full
 *   the receiver has read some; sendfile(2) takes 1048576 bytes more
 *   50 slow receivers: 100 MiB sent in 38 ms, the event loop was 12 ms late at worst
 */
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { sendFile, sendfile } from 'zerosend';

import { connection, MIB, makeFile } from '../common.js';

const path = makeFile(32 * MIB);
const fd = openSync(path, 'r');
const { socket, peer } = await connection(false);
let [sent, calls] = [0, 0];
for (let moved = sendfile(socket, fd, 0, 32 * MIB); moved !== null; moved = sendfile(socket, fd, sent, 32 * MIB)) {
  sent += moved;
  calls += 1;
}
console.log(`sendfile(2) took ${sent} bytes in ${calls} calls, then null: the socket is full`);
let read = 0;
peer.on('data', (chunk) => {
  read += chunk.length;
  if (read > MIB) peer.pause();
});
peer.resume();
await once(peer, 'pause');
await sleep(50);
console.log(`the receiver has read some; sendfile(2) takes ${sendfile(socket, fd, sent, MIB)} bytes more`);
socket.destroy();
peer.destroy();

// The same, done for you: who is blocked costs no thread, and nobody waits in the event loop.
let latest = 0;
let last = performance.now();
const clock = setInterval(() => {
  latest = Math.max(latest, performance.now() - last - 5);
  last = performance.now();
}, 5);
const begun = performance.now();
await Promise.all(
  Array.from({ length: 50 }, async () => {
    const lane = await connection(false);
    lane.peer.on('data', () => {
      lane.peer.pause();
      setTimeout(() => lane.peer.resume(), 20);
    });
    await sendFile(lane.socket, path, { length: 2 * MIB });
    lane.socket.destroy();
    lane.peer.destroy();
  }),
);
clearInterval(clock);
const ms = Math.round(performance.now() - begun);
console.log(`50 slow receivers: 100 MiB sent in ${ms} ms, the event loop was ${Math.round(latest)} ms late at worst`);
