/**
 * Tests a package with only Node and npm: installs it without scripts into an empty project, serves a file, and checks that `sendfile`
 * sent it. Plain JavaScript, because it runs in containers without other tools.
 *
 *   node scripts/release/smoke.mjs release/zerosend-0.1.0.tgz
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const PROGRAM = `
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { createFileServer, probe, sendFile } from 'zerosend';

const content = Buffer.alloc(4 << 20, 'zerosend ');
writeFileSync('file.bin', content);

const collect = async (stream) => {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
};

const results = [];
const server = createServer(async (socket) => {
  results.push(await sendFile(socket, 'file.bin'));
  socket.end();
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
assert.ok((await collect(connect(server.address().port, '127.0.0.1'))).equals(content));
server.close();
assert.equal(results[0].method, 'sendfile');

const files = createFileServer({ root: process.cwd(), host: '127.0.0.1', port: 0 });
const { url } = await files.listen();
const response = await fetch(new URL('/file.bin', url));
assert.equal(response.status, 200);
assert.ok(Buffer.from(await response.arrayBuffer()).equals(content));
await files.close();

await import('zerosend/fastify').catch((error) => assert.match(error.message, /'fastify'/));
console.log(\`node \${process.version} on \${process.arch}, Linux \${(await probe()).kernel}: 4 MiB by \${results[0].method}\`);
`;

const [tarball] = process.argv.slice(2);
if (tarball === undefined) {
  console.error('usage: node smoke.mjs <tarball>');
  process.exit(2);
}
const directory = mkdtempSync(path.join(tmpdir(), 'zerosend-smoke-'));
try {
  writeFileSync(path.join(directory, 'package.json'), '{ "name": "smoke", "private": true, "type": "module" }\n');
  writeFileSync(path.join(directory, 'main.js'), PROGRAM);
  const options = { cwd: directory, stdio: ['ignore', 'ignore', 'inherit'] };
  execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--prefer-offline', path.resolve(tarball)], options);
  // `zerosend probe` needs the native binary.
  execFileSync(path.join(directory, 'node_modules/.bin/zerosend'), ['probe'], options);
  process.stdout.write(execFileSync(process.execPath, ['main.js'], { ...options, stdio: ['ignore', 'pipe', 'inherit'] }));
} finally {
  rmSync(directory, { recursive: true, force: true });
}
