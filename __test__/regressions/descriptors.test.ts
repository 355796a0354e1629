/** Servers with few descriptors. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';

import { scratch } from '../support/files.js';
import { testWith } from '../support/tools.js';
import { parseResponses, readAll } from '../support/wire.js';

const SERVER = `
  const { createFileServer } = await import(process.argv[1]);
  const server = createFileServer({ root: process.argv[2], workers: 1 });
  console.log((await server.listen()).port);`;

testWith('prlimit')('more clients than descriptors: all are answered in order', async (t) => {
  const root = scratch(t);
  writeFileSync(join(root, 'a.txt'), 'the file');
  const entry = new URL('../../dist/index.js', import.meta.url).href;
  const args = ['--nofile=64:64', process.execPath, '--input-type=module', '-e', SERVER, entry, root];
  const server = spawn('prlimit', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => server.kill('SIGKILL'));
  const [line] = (await once(server.stdout, 'data')) as [Buffer];
  const answers = Array.from({ length: 100 }, async () => {
    const socket = net.connect(Number(line.toString()), '127.0.0.1');
    socket.on('error', () => {});
    await once(socket, 'connect');
    // Sent after the connection is established, so connections are accepted before their requests arrive.
    socket.write('GET /a.txt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n');
    const bytes = await readAll(socket).catch(() => Buffer.alloc(0));
    return parseResponses(bytes)[0]?.status;
  });
  t.deepEqual(await Promise.all(answers), Array(100).fill(200));
});
