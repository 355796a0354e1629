/**
 * A full socket: `sendfile` fails with EAGAIN (returned as `null`), and waiting for room must not block a shared thread. First with the
 * system call itself, then with fifty slow receivers at once while the event loop keeps running.
 *
 *   npx tsx examples/2-sendfile/non-blocking.ts
 *
 * Look for: the number of bytes sent before `null`, and that the event loop is delayed by milliseconds only while fifty transfers wait.
 *
 *   sendfile(2) sent 4160512 bytes in 1 calls, then returned null: the socket is full
 *   after the receiver has read 1 MiB, sendfile(2) sends 1048576 bytes more
 *   50 slow receivers: 100 MiB sent in 38 ms, maximum event loop delay 12 ms
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
console.log(`sendfile(2) sent ${sent} bytes in ${calls} calls, then returned null: the socket is full`);
let read = 0;
peer.on('data', (chunk) => {
  read += chunk.length;
  if (read > MIB) peer.pause();
});
peer.resume();
await once(peer, 'pause');
await sleep(50);
console.log(`after the receiver has read 1 MiB, sendfile(2) sends ${sendfile(socket, fd, sent, MIB)} bytes more`);
socket.destroy();
peer.destroy();

// `sendFile` waits for full sockets in its epoll thread: a stalled transfer occupies no thread and does not block the event loop.
let maxDelay = 0;
let last = performance.now();
const clock = setInterval(() => {
  maxDelay = Math.max(maxDelay, performance.now() - last - 5);
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
console.log(`50 slow receivers: 100 MiB sent in ${ms} ms, maximum event loop delay ${Math.round(maxDelay)} ms`);
