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
  test(`${variant} serves every file unchanged, and exits when stopped`, async () => {
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

test('the error of an unknown variant lists the known ones', async () => {
  await assert.rejects(
    startServer('apache', folder.root, 0),
    /server "apache" exited with code 2[^]*zerosend\|fastify-static\|send-buffer/,
  );
});

test('the error of a server that cannot start contains the reason', async () => {
  await assert.rejects(
    startServer('send-buffer', join(folder.root, 'absent'), 0),
    /server "send-buffer" exited with code 1[^]*ENOENT/,
  );
});

test('the error of a server killed under load contains the signal', async () => {
  const server = await startServer('fastify-static', folder.root, 0);
  const load = measureLoad(server, { url: `${server.url}/static/1k.bin`, connections: 4, seconds: 2, core: 0 });
  setTimeout(() => process.kill(server.pid, 'SIGKILL'), 500);
  await assert.rejects(load, /server "fastify-static" exited with signal SIGKILL during the run/);
});

test('a server that sends wrong bytes is rejected', async () => {
  const server = await startServer('send-buffer', folder.root, 0);
  try {
    const wrong = folder.files.map((file) => ({ ...file, sha256: '0'.repeat(64) }));
    await assert.rejects(verifyServer(server, wrong), /"send-buffer": \/static\/1k.bin differs from the file/);
    const short = folder.files.map((file) => ({ ...file, bytes: file.bytes + 1 }));
    await assert.rejects(verifyServer(server, short), /has 1024 bytes, expected 1025/);
  } finally {
    await server.stop();
  }
});
