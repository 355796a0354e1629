import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { measureLoad } from '../src/compare.ts';
import { cpuSeconds } from '../src/cpu.ts';
import { makeFiles } from '../src/files.ts';
import { startServer, verifyServer } from '../src/servers.ts';

const folder = makeFiles(['1k', '3m']);
after(() => folder.remove());

for (const variant of ['fastify-static', 'send-buffer']) {
  test(`${variant} serves every file as it is, and ends when it is told to`, async () => {
    const server = await startServer(variant, folder.root, 0);
    try {
      await verifyServer(server, folder.files);
      assert.ok(cpuSeconds(server.pid) > 0);
      server.check();
    } finally {
      await server.stop();
    }
    assert.throws(() => process.kill(server.pid, 0), { code: 'ESRCH' });
  });
}

test('a variant that does not exist is named, with those that do', async () => {
  await assert.rejects(
    startServer('apache', folder.root, 0),
    /server "apache" ended with code 2[^]*zerosend\|fastify-static\|send-buffer/,
  );
});

test('a server that cannot start says why', async () => {
  await assert.rejects(
    startServer('send-buffer', join(folder.root, 'absent'), 0),
    /server "send-buffer" ended with code 1[^]*ENOENT/,
  );
});

test('a server that dies under load is named, with the signal', async () => {
  const server = await startServer('fastify-static', folder.root, 0);
  const load = measureLoad(server, { url: `${server.url}/static/1k.bin`, connections: 4, seconds: 2, core: 0 });
  setTimeout(() => process.kill(server.pid, 'SIGKILL'), 500);
  await assert.rejects(load, /server "fastify-static" ended with signal SIGKILL during the run/);
});

test('a server with other bytes than the file is not measured', async () => {
  const server = await startServer('send-buffer', folder.root, 0);
  try {
    const wrong = folder.files.map((file) => ({ ...file, sha256: '0'.repeat(64) }));
    await assert.rejects(verifyServer(server, wrong), /"send-buffer": \/static\/1k.bin has other bytes than the file/);
    const short = folder.files.map((file) => ({ ...file, bytes: file.bytes + 1 }));
    await assert.rejects(verifyServer(server, short), /has 1024 bytes, not 1025/);
  } finally {
    await server.stop();
  }
});
