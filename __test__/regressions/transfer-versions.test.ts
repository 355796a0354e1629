/** Files that change while they are sent, or without notice on FUSE; incomplete bodies end in a reset. */
import { appendFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';
import { sendFile, sendFiles } from 'zerosend';

import { METHODS } from '../../dist/lib/types/method.js';
import { fuseSerial, mount } from '../support/faultfs.js';
import { patternFile, scratch } from '../support/files.js';
import { pair, readExactly, readToClose } from '../support/wire.js';

const MiB = 1024 * 1024;

function fdOf(socket: object): number {
  return (socket as { _handle: { fd: number } })._handle.fd;
}

for (const attrTimeout of [0, 60_000]) {
  fuseSerial(
    `a file changed without notice on FUSE (attributes cached for ${attrTimeout} ms) is sent in its new version`,
    async (t) => {
      const fs = await mount(t, { attrTimeout, entryTimeout: attrTimeout });
      const [behind, path] = [join(fs.backing, 'file'), join(fs.path, 'file')];
      for (const method of METHODS) {
        for (const to of ['socket', 'descriptor'] as const) {
          writeFileSync(behind, 'x'.repeat(10_000));
          const send = async () => {
            const { server, client } = await pair(t);
            const result = sendFile(to === 'socket' ? server : fdOf(server), path, { method });
            const outcome = await result.then(
              ({ bytes }) => bytes,
              (error: NodeJS.ErrnoException) => error.code,
            );
            server.destroy();
            const { bytes } = await readToClose(client);
            t.false(bytes.includes(0), `${method} ${to}: no byte beyond the end`);
            return [outcome, bytes.length];
          };
          t.deepEqual(await send(), [10_000, 10_000], `${method} ${to}`);
          // Truncated: while the kernel caches the attributes, the old length may be announced; then it is an error.
          truncateSync(behind, 9_999);
          const [outcome, bytes] = await send();
          if (attrTimeout === 0) t.deepEqual([outcome, bytes], [9_999, 9_999], `${method} ${to}`);
          else t.true(outcome === 9_999 || outcome === 'ERR_ZEROSEND_TRUNCATED', `${method} ${to}: ${outcome}`);
          appendFileSync(behind, 'yy');
          if (attrTimeout === 0) t.deepEqual(await send(), [10_001, 10_001], `${method} ${to}`);
        }
      }
    },
  );
}

test.serial('an incomplete body ends in a reset, unless the caller has aborted the transfer', async (t) => {
  for (const method of METHODS) {
    for (const to of ['socket', 'descriptor'] as const) {
      const file = patternFile(scratch(t), 'file', 30 * MiB);
      const { server, client } = await pair(t);
      const sending = sendFile(to === 'socket' ? server : fdOf(server), file, { method });
      await readExactly(client, MiB);
      truncateSync(file, 10 * MiB);
      const end = readToClose(client);
      await t.throwsAsync(sending, { code: 'ERR_ZEROSEND_TRUNCATED' }, `${method} ${to}`);
      server.destroy();
      t.true((await end).reset, `${method} ${to}`);

      const other = await pair(t);
      const stop = new AbortController();
      const stopped = sendFile(to === 'socket' ? other.server : fdOf(other.server), file, { signal: stop.signal });
      await readExactly(other.client, MiB);
      stop.abort();
      await t.throwsAsync(stopped, { code: 'ABORT_ERR' });
      const rest = readToClose(other.client);
      other.server.end('the caller continues');
      const { bytes, reset } = await rest;
      t.false(reset);
      t.true(bytes.toString('latin1').endsWith('the caller continues'));
    }
  }
});

fuseSerial('a disk error during a body ends in a reset', async (t) => {
  const fs = await mount(t);
  patternFile(fs.backing, 'file', 4 * MiB);
  for (const to of ['socket', 'descriptor'] as const) {
    const { server, client } = await pair(t);
    const end = readToClose(client);
    await fs.set('read', { errno: 'EIO', from: 2 * MiB });
    const parts = [Buffer.from('head'), { file: join(fs.path, 'file') }];
    await t.throwsAsync(sendFiles(to === 'socket' ? server : fdOf(server), parts), { code: 'EIO' }, to);
    server.destroy();
    t.true((await end).reset, to);
    await fs.clear();
  }
});
