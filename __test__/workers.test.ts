/** Each thread has an engine of its own, and may go away at any moment. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { Worker } from 'node:worker_threads';

import test from 'ava';
import { sendFile } from 'zerosend';

import { openDescriptors, patternFile, scratch, settled } from './support/files.js';
import { pair, readAll } from './support/wire.js';

// Sends a file to whoever connects, by the pump and by the reactor, over and over.
const PROGRAM = `
  import { createServer } from 'node:net';
  import { parentPort, workerData } from 'node:worker_threads';
  import { sendFile } from 'zerosend';
  const server = createServer(async (socket) => {
    socket.on('error', () => {});
    try {
      for (let turn = 0; ; turn++) await sendFile(turn % 2 ? socket : socket._handle.fd, workerData);
    } catch {
      socket.destroy();
    }
  }).listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));
`;

test.serial('20 workers terminated in mid-transfer: the process lives, nothing stays open', async (t) => {
  const directory = scratch(t);
  const file = patternFile(directory, 'file', 8 * 1024 * 1024);
  const before = openDescriptors();
  const program = new URL(
    `data:text/javascript,${encodeURIComponent(PROGRAM.replaceAll("'zerosend'", `'${import.meta.resolve('zerosend')}'`))}`,
  );
  const one = async (at: number) => {
    const worker = new Worker(program, { workerData: file });
    const [port] = (await once(worker, 'message')) as [number];
    const clients = Array.from({ length: 4 }, () => connect({ port, host: '127.0.0.1' }).on('error', () => {}));
    // Half of them read, half of them let the transfer stand.
    for (const client of clients.filter((_, number) => number % 2 === 0)) client.resume();
    await new Promise((resolve) => setTimeout(resolve, 20 + at * 7));
    await worker.terminate();
    for (const client of clients) client.destroy();
  };
  await Promise.all(Array.from({ length: 20 }, (_, at) => one(at)));
  await settled(t, before);

  const { server, client } = await pair(t);
  const received = readAll(client);
  await sendFile(server, file);
  server.end();
  t.is((await received).length, 8 * 1024 * 1024, 'the main thread still sends');
});
