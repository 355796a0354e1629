/** MappedFile: visibility of writes, residency, and truncated files. */
import { closeSync, existsSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';
import { MappedFile, type MappedFileOptions } from 'zerosend';

import { openDescriptors, pattern, patternFile, scratch, settled } from './support/files.js';

test.serial('mode read returns the bytes of the file, including later writes to it', async (t) => {
  const before = openDescriptors();
  const path = patternFile(scratch(t), 'file', 100_000);
  const file = await MappedFile.open(path);
  t.like(file, { path, size: 100_000, mode: 'read' });
  t.deepEqual(await file.read(), pattern(100_000));
  t.deepEqual(await file.read(50_000, 10), pattern(50_010).subarray(50_000));
  t.deepEqual(await file.read(100_000), Buffer.alloc(0));
  await t.throwsAsync(file.read(99_999, 2), {
    code: 'ERR_ZEROSEND_OUT_OF_RANGE',
    message: /exceed the 100000 mapped bytes/,
  });
  await t.throwsAsync(file.write(0, Buffer.from('x')), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT', message: /'read'/ });
  const fd = openSync(path, 'r+');
  writeSync(fd, 'hello', 0);
  closeSync(fd);
  t.is((await file.read(0, 5)).toString(), 'hello');
  await file.flush();
  file.close();
  file.close();
  await t.throwsAsync(file.read(), { code: 'ERR_ZEROSEND_CLOSED' });
  t.throws(() => file.residency(), { code: 'ERR_ZEROSEND_CLOSED' });
  await settled(t, before);
});

test.serial('writes in mode private do not reach the file', async (t) => {
  const path = patternFile(scratch(t), 'file', 20_000);
  const [file, other] = [await MappedFile.open(path, { mode: 'private' }), await MappedFile.open(path)];
  await file.write(5000, Buffer.from('mine'));
  t.is((await file.read(5000, 4)).toString(), 'mine');
  await file.flush();
  t.deepEqual(await other.read(), pattern(20_000));
  t.deepEqual(readFileSync(path), pattern(20_000));
  file.advise('dontneed');
  t.deepEqual(await file.read(), pattern(20_000), 'forgotten');
  file.close();
  other.close();
});

test.serial('mode shared writes to the file, and length creates and extends it', async (t) => {
  const path = join(scratch(t), 'file');
  await t.throwsAsync(MappedFile.open(path, { mode: 'shared' }), { code: 'ENOENT' });
  const file = await MappedFile.open(path, { mode: 'shared', length: 10_000 });
  const bytes = Buffer.from('written');
  const writing = file.write(9000, bytes);
  bytes.fill(0);
  await writing;
  t.is(readFileSync(path).subarray(9000, 9007).toString(), 'written', 'at once');
  await file.flush({ async: true });
  await file.flush();
  const longer = await MappedFile.open(path, { mode: 'shared', length: 20_000, populate: true });
  t.is(longer.size, 20_000);
  t.is(readFileSync(path).length, 20_000);
  t.is((await longer.read(9000, 7)).toString(), 'written');
  const part = await MappedFile.open(path, { length: 100 });
  t.is(part.size, 100);
  for (const one of [file, longer, part]) one.close();
});

test.serial('access beyond the end of a truncated file is an error, not a signal', async (t) => {
  const path = join(scratch(t), 'file');
  for (const mode of ['read', 'private', 'shared'] as const) {
    writeFileSync(path, pattern(100_000));
    const file = await MappedFile.open(path, { mode });
    truncateSync(path, 5000);
    const truncated = { code: 'ERR_ZEROSEND_TRUNCATED' };
    await t.throwsAsync(file.read(50_000, 10), truncated, 'a page beyond the end');
    await t.throwsAsync(file.read(4999, 10), truncated, 'the page with the end');
    t.deepEqual(await file.read(0, 5000), pattern(5000));
    if (mode !== 'read') {
      await t.throwsAsync(file.write(50_000, Buffer.from('x')), truncated);
      await t.throwsAsync(file.write(5000, Buffer.from('x')), truncated);
      await file.write(0, Buffer.from('fine'));
    }
    file.close();
  }
});

test.serial('residency counts pages, and advice is checked', async (t) => {
  const path = patternFile(scratch(t), 'file', 1_000_000);
  const file = await MappedFile.open(path, { populate: true });
  const { pageSize, pages, resident } = file.residency();
  t.is(pages, Math.ceil(1_000_000 / pageSize));
  t.is(resident, pages);
  for (const advice of ['sequential', 'random', 'willneed', 'dontneed'] as const) file.advise(advice);
  t.deepEqual(await file.read(999_990, 10), pattern(1_000_000).subarray(999_990));
  t.throws(() => file.advise('maybe' as 'random'), {
    code: 'ERR_ZEROSEND_INVALID_ARGUMENT',
    message: /invalid advice 'maybe'/,
  });
  file.close();
});

test('files that cannot be mapped are refused', async (t) => {
  const directory = scratch(t);
  const path = patternFile(directory, 'file', 10);
  const refused = (name: string, options: object, code: string, message: RegExp = /./) =>
    t.throwsAsync(MappedFile.open(name, options as MappedFileOptions), { code, message });
  await refused(join(directory, 'none'), {}, 'ENOENT');
  await refused(directory, {}, 'ERR_ZEROSEND_NOT_REGULAR_FILE');
  await refused(path, { length: 11 }, 'ERR_ZEROSEND_OUT_OF_RANGE', /length 11 exceeds the file of 10 bytes/);
  await refused(patternFile(directory, 'empty', 0), {}, 'ERR_ZEROSEND_INVALID_ARGUMENT', /empty/);
  await refused(path, { mode: 'write' }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid mode 'write'/);
  await refused(path, { length: -1 }, 'ERR_ZEROSEND_OUT_OF_RANGE');
  await refused('', {}, 'ERR_ZEROSEND_INVALID_ARGUMENT');
  t.false(existsSync(join(directory, 'none')));
});
