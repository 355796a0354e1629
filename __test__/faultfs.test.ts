/** The fault-injecting file system that other tests use. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { fuse, mount } from './support/faultfs.js';

fuse('a change in the backing directory is visible after the timeouts', async (t) => {
  const { backing, path } = await mount(t, { attrTimeout: 0, entryTimeout: 0 });
  writeFileSync(join(backing, 'a'), 'one');
  t.is(await readFile(join(path, 'a'), 'utf8'), 'one');
  writeFileSync(join(backing, 'a'), 'another');
  t.is((await stat(join(path, 'a'))).size, 7);
  t.is(await readFile(join(path, 'a'), 'utf8'), 'another');
});

fuse('a hung read resumes, and does not delay other files', async (t) => {
  const faults = await mount(t);
  writeFileSync(join(faults.backing, 'slow'), 'slow');
  writeFileSync(join(faults.backing, 'quick'), 'quick');
  await faults.set('read', { hang: true }, '/slow');
  const slow = readFile(join(faults.path, 'slow'), 'utf8');
  await faults.held('read');
  t.is(await readFile(join(faults.path, 'quick'), 'utf8'), 'quick');
  await faults.clear();
  t.is(await slow, 'slow');
  t.deepEqual(await faults.count('read'), { calls: 2, waiting: 0 });
});

fuse('errors are injected by operation, path and offset', async (t) => {
  const faults = await mount(t, { attrTimeout: 0 });
  writeFileSync(join(faults.backing, 'a'), Buffer.alloc(1 << 20));
  await faults.set('open', { errno: 'ESTALE' }, '/a');
  // libuv has no name for ESTALE.
  await t.throwsAsync(open(join(faults.path, 'a')), { message: /ESTALE|-116/ });
  await faults.clear('open', '/a');
  await faults.set('read', { errno: 'EIO', from: 500_000 }, '/a');
  const file = await open(join(faults.path, 'a'));
  t.is((await file.read(Buffer.alloc(4096), 0, 4096, 0)).bytesRead, 4096);
  await t.throwsAsync(file.read(Buffer.alloc(4096), 0, 4096, 900_000), { code: 'EIO' });
  await file.close();
  await t.throwsAsync(faults.set('read', { errno: 'EWHAT' }), { message: /unknown error 'EWHAT'/ });
});

fuse('a killed daemon gives ENOTCONN until it is mounted again', async (t) => {
  const faults = await mount(t);
  writeFileSync(join(faults.backing, 'a'), 'bytes');
  t.is(readFileSync(join(faults.path, 'a'), 'utf8'), 'bytes');
  await faults.kill();
  t.throws(() => readFileSync(join(faults.path, 'a')), { code: 'ENOTCONN' });
  await t.throwsAsync(faults.clear(), { message: /ended before it answered/ });
  await faults.remount();
  t.is(readFileSync(join(faults.path, 'a'), 'utf8'), 'bytes');
  await faults.close();
  t.false(existsSync(faults.path));
});
