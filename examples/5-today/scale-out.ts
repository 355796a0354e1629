/**
 * Several instances behind HAProxy with consistent hashing of the URL: each path always goes to the same instance, so each file is
 * cached once. This program starts everything.
 *
 *   npx tsx examples/5-today/scale-out.ts                (needs haproxy; runs a demonstration and exits)
 *   npx tsx examples/5-today/scale-out.ts --port 8080 --instances 4
 *
 * Look for: no file is in two caches; when an instance stops, only its files move to other instances.
 *
 *   3 instances, 60 files, each requested 5 times through HAProxy
 *   instance 1 caches 22 files, instance 2 caches 22 files, instance 3 caches 16 files: 60 in total
 *   after instance 3 has stopped: 44 of 44 files of the others kept their instance
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { createFileServer, FileCache, type FileServer } from 'zerosend';

import { isDemonstration, makeFile, option, portOf, scratch } from '../common.js';

const root = scratch();
const names = Array.from({ length: 60 }, (_, number) => `file-${number}.bin`);
for (const name of names) makeFile(20_000, root, name);
// The cache does not keep a file that has just changed.
await sleep(100);

interface Instance {
  server: FileServer;
  cache: FileCache;
  port: number;
}

const instances: Instance[] = [];
for (let number = 0; number < Number(option('instances', '3')); number++) {
  const cache = new FileCache({ maxFiles: 1000 });
  const server = createFileServer({ root, cache, workers: 1, headers: { 'x-instance': `${number + 1}` } });
  const address = await server.listen();
  instances.push({ server, cache, port: 'port' in address ? address.port : 0 });
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const port = portOf(probe);
  probe.close();
  return port;
}

const port = isDemonstration() ? await freePort() : Number(option('port', '8080'));
const config = join(root, '.haproxy.cfg');
writeFileSync(
  config,
  `defaults
  mode http
  timeout connect 1s
  timeout client 30s
  timeout server 30s
frontend files
  bind 127.0.0.1:${port}
  default_backend instances
backend instances
  balance uri
  hash-type consistent
  option redispatch
${instances.map((one, number) => `  server instance${number + 1} 127.0.0.1:${one.port} check inter 100ms fall 1 rise 1`).join('\n')}
`,
);
const haproxy = spawn('haproxy', ['-f', config], { stdio: ['ignore', 'ignore', 'ignore'] });
haproxy.once('error', () => {
  console.error('haproxy is not installed: apt-get install haproxy');
  process.exit(1);
});
process.once('exit', () => haproxy.kill());

const url = `http://127.0.0.1:${port}`;
const instanceOf = async (name: string) => {
  const response = await fetch(`${url}/${name}`);
  if ((await response.arrayBuffer()).byteLength !== 20_000) throw new Error(`${name}: status ${response.status}`);
  return Number(response.headers.get('x-instance'));
};
while ((await fetch(url).catch(() => undefined)) === undefined) await sleep(50);
await sleep(300);
if (!isDemonstration()) console.log(`${instances.length} instances behind ${url}`);
else {
  console.log(`${instances.length} instances, ${names.length} files, each requested 5 times through HAProxy`);
  const where = new Map<string, number>();
  for (let time = 0; time < 5; time++) {
    for (const name of names) {
      const instance = await instanceOf(name);
      if (where.has(name) && where.get(name) !== instance) throw new Error(`${name} has moved`);
      where.set(name, instance);
    }
  }
  const held = instances.map(({ cache }) => cache.entries().length);
  const list = held.map((files, number) => `instance ${number + 1} caches ${files} files`).join(', ');
  console.log(`${list}: ${held.reduce((sum, files) => sum + files, 0)} in total`);
  await instances.at(-1)?.server.close({ drain: 0 });
  await sleep(500);
  const others = names.filter((name) => where.get(name) !== instances.length);
  let kept = 0;
  for (const name of others) if ((await instanceOf(name)) === where.get(name)) kept += 1;
  console.log(
    `after instance ${instances.length} has stopped: ${kept} of ${others.length} files of the others kept their instance`,
  );
  process.exit();
}
