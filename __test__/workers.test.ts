/** Worker threads have separate engines, and may be terminated at any time. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';

import test from 'ava';
import { sendFile } from 'zerosend';

import { openDescriptors, patternFile, scratch, settled } from './support/files.js';
import { pair, readAll } from './support/wire.js';

// Repeatedly sends a file to clients, with the pump and with the reactor.
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

test.serial('20 workers terminated during transfers leave no descriptors', async (t) => {
  const directory = scratch(t);
  const file = patternFile(directory, 'file', 8 * 1024 * 1024);
  const before = openDescriptors();
  const program = new URL(
    `data:text/javascript,${encodeURIComponent(PROGRAM.replaceAll("'zerosend'", `'${import.meta.resolve('zerosend')}'`))}`,
  );
  const runWorker = async (at: number) => {
    const worker = new Worker(program, { workerData: file });
    const [port] = (await once(worker, 'message')) as [number];
    const clients = Array.from({ length: 4 }, () => connect({ port, host: '127.0.0.1' }).on('error', () => {}));
    // Half of the clients read, the others stall the transfer.
    for (const client of clients.filter((_, number) => number % 2 === 0)) client.resume();
    await new Promise((resolve) => setTimeout(resolve, 20 + at * 7));
    await worker.terminate();
    for (const client of clients) client.destroy();
  };
  await Promise.all(Array.from({ length: 20 }, (_, at) => runWorker(at)));
  await settled(t, before);

  const { server, client } = await pair(t);
  const received = readAll(client);
  await sendFile(server, file);
  server.end();
  t.is((await received).length, 8 * 1024 * 1024, 'the main thread can still send');
});

// A process in which only a worker loads the native library. Prints whether it is still mapped after the worker has exited.
const ONLY_A_WORKER_LOADS_IT = `
  import { once } from 'node:events';
  import { readFileSync } from 'node:fs';
  import { Worker } from 'node:worker_threads';
  const isMapped = () => /zerosend\\.[^ ]*\\.node$/m.test(readFileSync('/proc/self/maps', 'utf8'));
  const before = isMapped();
  const worker = new Worker(new URL('data:text/javascript,' + encodeURIComponent(process.argv[1])), { workerData: process.argv[2] });
  await once(worker, 'exit');
  console.log(before, isMapped());
`;

const SEND_ON_A_NATIVE_THREAD = `
  import { openSync } from 'node:fs';
  import { workerData } from 'node:worker_threads';
  import { sendFile } from 'zerosend';
  await sendFile(openSync('/dev/null', 'w'), workerData);
`;

test.serial('the native library stays loaded while its threads run', async (t) => {
  const file = patternFile(scratch(t), 'file', 1000);
  const program = SEND_ON_A_NATIVE_THREAD.replace("'zerosend'", `'${import.meta.resolve('zerosend')}'`);
  const args = ['--input-type=module', '--eval', ONLY_A_WORKER_LOADS_IT, program, file];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  t.is(stdout, 'false true\n');
});
