/** Versions of files, roots and validators, through every front end. */
import { rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';
import { FileCache } from 'zerosend';

import { scratch, settle } from '../support/files.js';
import { frontEnds } from '../support/front-ends.js';
import { get } from '../support/wire.js';

const PAST = new Date('2020-01-01T00:00:00Z');

/** Writes over a file and puts a time back as `tar`, `rsync -t` and `cp -p` do. */
function restore(path: string, bytes: string, time = PAST): void {
  writeFileSync(path, bytes);
  utimesSync(path, time, time);
}

for (const replaced of [false, true]) {
  test.serial(`a file ${replaced ? 'recreated' : 'written over'} with its old time and length is served`, async (t) => {
    const root = scratch(t);
    const index = join(root, 'index.html');
    for (const etag of [true, 'content'] as const) {
      restore(index, 'version 1');
      restore(`${index}.gz`, 'encoded 1');
      settle();
      const all = await frontEnds(t, root, { etag, preCompressed: true });
      const headers = { 'Accept-Encoding': 'gzip' };
      const tags = new Map<string, string>();
      for (const { name, port } of all) {
        for (let turn = 0; turn < 3; turn += 1) {
          t.is((await get(port, '/')).body.toString(), 'version 1', name);
          t.is((await get(port, '/', headers)).body.toString(), 'encoded 1', name);
        }
        tags.set(name, (await get(port, '/')).headers.etag as string);
      }
      if (replaced) rmSync(index);
      restore(index, 'version 2');
      if (replaced) rmSync(`${index}.gz`);
      restore(`${index}.gz`, 'encoded 2');
      for (const { name, port } of all) {
        t.is((await get(port, '/')).body.toString(), 'version 2', name);
        t.is((await get(port, '/', headers)).body.toString(), 'encoded 2', name);
      }
      settle();
      if (etag !== 'content') continue;
      for (const { name, port } of all) {
        const fresh = await get(port, '/', { 'If-None-Match': tags.get(name) as string });
        t.is(fresh.status, 200, `${name}: the strong tag of the old bytes`);
        t.not(fresh.headers.etag, tags.get(name), name);
      }
    }
  });
}

test('a FileCache notices a file restored with its old time and length', async (t) => {
  const path = join(scratch(t), 'a');
  const cache = new FileCache();
  t.teardown(() => cache.close());
  for (const [size, digit] of [
    [10, '1'],
    [10, '2'],
    [100_000, '3'],
    [100_000, '4'],
  ] as const) {
    restore(path, digit.repeat(size));
    settle();
    const file = await cache.get(path);
    t.is((await file.read()).toString(), digit.repeat(size));
    t.is(file.mtimeMs, PAST.getTime());
    t.true(file.ctimeMs > PAST.getTime());
  }
  t.is(cache.stats().stale, 3);
});
