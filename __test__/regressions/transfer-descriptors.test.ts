/** Descriptors that share an open file description. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';

import test from 'ava';

import { scratch } from '../support/files.js';
import { readAll } from '../support/wire.js';

/** stdout and stderr are one pipe in blocking mode, which is not read at first. */
const PROGRAM = `
  import { writeFileSync } from 'node:fs';
  import { connect, createServer } from 'node:net';
  import { sendFile, sendFiles } from 'zerosend';
  const [small, large] = [process.argv[1] + '/small', process.argv[1] + '/large'];
  writeFileSync(small, 'x'.repeat(100_000));
  writeFileSync(large, 'x'.repeat(4 * 1024 * 1024));
  const first = sendFile(1, small);
  // Not at once: the order in which the threads of the pool open the files is not defined.
  const second = first.then(() => sendFiles(2, [{ file: large }]));
  process.on('message', async (message) => {
    if (message === 'first') {
      await first;
      process.send('first');
      return;
    }
    // Another transfer of the reactor, while the second one is blocked.
    const server = createServer((socket) => socket.resume()).listen(0, '127.0.0.1', () => {
      const socket = connect(server.address().port, '127.0.0.1', async () => {
        await sendFile(socket._handle.fd, large);
        process.send('third');
        await second;
        process.exit(0);
      });
    });
  });
  process.send('started');
`;

test('transfers to stdout, stderr and a socket do not wait for each other', async (t) => {
  const directory = scratch(t);
  // A pipe of the shell, because Node uses sockets. The reader reads enough for the first transfer and one turn of the second, waits
  // for a line on descriptor 4, and counts the rest.
  const script =
    '"$0" --input-type=module -e "$1" "$2" 2>&1 | { head -c 200000 | wc -c; read -r line <&4; wc -c; } >&5';
  const child = spawn('sh', ['-c', script, process.execPath, PROGRAM, directory], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc', 'pipe', 'pipe'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const counts = readAll((child.stdio as unknown[])[5] as Readable);
  t.is((await once(child, 'message'))[0], 'started');
  child.send('first');
  t.is((await once(child, 'message'))[0], 'first');
  child.send('third');
  t.is((await once(child, 'message'))[0], 'third', 'the reactor was not blocked');
  (child.stdio[4] as Writable).end('continue\n');
  t.deepEqual((await counts).toString().trim().split(/\s+/).map(Number), [
    200_000,
    100_000 + 4 * 1024 * 1024 - 200_000,
  ]);
});
