/**
 * The front door: native threads in front of a Fastify application, in the same process and on the same port. They serve files without
 * JavaScript, even while it is blocked, and pass all other requests to the application.
 *
 *   npx tsx examples/5-today/front-door.ts                (runs a demonstration and exits)
 *   npx tsx examples/5-today/front-door.ts --port 3000
 *
 * Look for: files are served within milliseconds while a route blocks JavaScript for a second.
 *
 *   a file:  200 in 45 ms
 *   a route: 200 {"hello":"world"}
 *   JavaScript blocked for 1 s: 50 files were served in that time, the slowest in 18 ms
 */
import { execFile } from 'node:child_process';
import { dirname } from 'node:path';
import { promisify } from 'node:util';

import fastify from 'fastify';
import { frontDoor } from 'zerosend/fastify';

import { isDemonstration, makeFile, option } from '../common.js';

const root = dirname(makeFile(10_000));
const app = fastify({ serverFactory: frontDoor({ root, prefix: '/static/' }) });
app.get('/api', async () => ({ hello: 'world' }));
app.get('/busy', async () => {
  const end = performance.now() + 1000;
  while (performance.now() < end);
  return 'done';
});
const url = await app.listen({ port: Number(option('port', '0')), host: '127.0.0.1' });
if (!isDemonstration()) console.log(`listening on ${url}`);
else {
  const begun = performance.now();
  const file = await fetch(`${url}/static/file.bin`);
  await file.arrayBuffer();
  console.log(`a file:  ${file.status} in ${Math.round(performance.now() - begun)} ms`);
  const route = await fetch(`${url}/api`);
  console.log(`a route: ${route.status} ${await route.text()}`);
  // The client is another process, because this one blocks.
  const program = `
    const busy = fetch('${url}/busy');
    setTimeout(async () => {
      let slowest = 0;
      for (let at = 0; at < 50; at++) {
        const begun = performance.now();
        const response = await fetch('${url}/static/file.bin');
        await response.arrayBuffer();
        if (response.status !== 200) throw new Error('' + response.status);
        slowest = Math.max(slowest, performance.now() - begun);
      }
      console.log('50 files were served in that time, the slowest in ' + Math.round(slowest) + ' ms');
      await busy;
    }, 200);`;
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', program]);
  console.log(`JavaScript blocked for 1 s: ${stdout.trim()}`);
  await app.close();
}
