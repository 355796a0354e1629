/**
 * The smallest relay: what comes goes back, through a pipe of the kernel, on a native thread. JavaScript starts it and watches.
 *
 *   npx tsx examples/3-splice/echo-server.ts               (shows itself and ends)
 *   npx tsx examples/3-splice/echo-server.ts --port 7777   then: nc 127.0.0.1 7777
 *
 * Look for: the same bytes back, while the event loop of this process is blocked.
 *
 *   sent 8388608 bytes and got the same back
 *   while JavaScript was busy: still the same
 *   2 connections, 8388616 bytes given back
 */
import { execFileSync } from 'node:child_process';
import { connect } from 'node:net';

import { createEchoServer } from 'zerosend';

import { drain, isDemonstration, MIB, makeFile, option, sha256 } from '../common.js';

const server = await createEchoServer({ listen: Number(option('port', '0')), method: 'splice' });
const { port } = server.address as { port: number };
if (!isDemonstration()) console.log(`listening on port ${port}`);
else {
  const path = makeFile(8 * MIB);
  const client = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const { readFileSync } = await import('node:fs');
  client.end(readFileSync(path));
  const { bytes, hash } = await drain(client);
  console.log(`sent ${bytes} bytes and got ${hash === sha256(path) ? 'the same' : 'something else'} back`);
  // This thread waits for another process, which is answered all the same.
  const program = `const s = require('net').connect(${port}, '127.0.0.1', () => s.end('are you?')); s.pipe(process.stdout)`;
  const answer = execFileSync(process.execPath, ['-e', program]).toString();
  console.log(`while JavaScript was busy: ${answer === 'are you?' ? 'still the same' : answer}`);
  await server.close();
  const { accepted, bytesUp } = server.stats();
  console.log(`${accepted} connections, ${bytesUp} bytes given back`);
}
