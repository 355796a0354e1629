/**
 * A minimal relay: an echo server that returns received bytes through a kernel pipe, on a native thread.
 *
 *   npx tsx examples/3-splice/echo-server.ts               (runs a demonstration and exits)
 *   npx tsx examples/3-splice/echo-server.ts --port 7777   then: nc 127.0.0.1 7777
 *
 * Look for: the bytes come back unchanged, even while the event loop of this process is blocked.
 *
 *   sent 8388608 bytes, received identical bytes
 *   while JavaScript was blocked: identical
 *   2 connections, 8388616 bytes echoed
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
  console.log(`sent ${bytes} bytes, received ${hash === sha256(path) ? 'identical' : 'different'} bytes`);
  // execFileSync blocks this thread until the client process has its answer.
  const program = `const s = require('net').connect(${port}, '127.0.0.1', () => s.end('question')); s.pipe(process.stdout)`;
  const answer = execFileSync(process.execPath, ['-e', program]).toString();
  console.log(`while JavaScript was blocked: ${answer === 'question' ? 'identical' : answer}`);
  await server.close();
  const { accepted, bytesUp } = server.stats();
  console.log(`${accepted} connections, ${bytesUp} bytes echoed`);
}
