/**
 * The file server: native threads handle requests without JavaScript. `-p`, `-r` and `-m` set port, root and method.
 *
 *   npx tsx examples/4-mmap/file-server.ts                        (runs a demonstration and exits)
 *   npx tsx examples/4-mmap/file-server.ts -p 8080 -r . -m mmap   then: curl -v http://127.0.0.1:8080/README.md
 *
 * Look for: requests are answered while the JavaScript thread is blocked. (`npx zerosend serve` has all options.)
 *
 *   GET /index.html: 200, 27 bytes
 *   GET /large.bin: 200, 5000000 bytes
 *   GET /none: 404
 *   100 requests while JavaScript was blocked: all answered
 *   103 requests
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { createFileServer, type Method } from 'zerosend';

import { isDemonstration, makeFile, option, scratch } from '../common.js';

const demonstration = isDemonstration();
const root = demonstration ? scratch() : option('root', '.');
const server = createFileServer({
  root,
  port: Number(option('port', '0')),
  method: option('method', 'auto') as Method,
  list: true,
});
const address = await server.listen();
const url = 'url' in address ? address.url : '';
if (!demonstration) console.log(`listening on ${url}`);
else {
  writeFileSync(join(root, 'index.html'), '<!doctype html><title>hello');
  makeFile(5_000_000, root, 'large.bin');
  for (const name of ['index.html', 'large.bin', 'none']) {
    const response = await fetch(new URL(name, url));
    const { byteLength } = await response.arrayBuffer();
    console.log(`GET /${name}: ${response.status}${response.ok ? `, ${byteLength} bytes` : ''}`);
  }
  const program = `Promise.all(Array.from({ length: 100 }, () => fetch('${url}').then((r) => r.status)))
    .then((all) => console.log(all.every((status) => status === 200) ? 'all answered' : all))`;
  console.log(
    `100 requests while JavaScript was blocked: ${execFileSync(process.execPath, ['-e', program]).toString().trim()}`,
  );
  const { requests } = server.stats();
  await server.close();
  console.log(`${requests} requests`);
}
