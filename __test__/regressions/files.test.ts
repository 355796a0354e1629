/** Versions of files, roots and validators, with all front ends. */
import {
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';

import test from 'ava';
import fastify from 'fastify';
import { createFileServer, createStaticHandler, FileCache, sendFile } from 'zerosend';
import fastifyStatic from 'zerosend/fastify';

import { fuseSerial, mount } from '../support/faultfs.js';
import { pattern, scratch, settle } from '../support/files.js';
import { frontEnds } from '../support/front-ends.js';
import { get, pair, readExactly } from '../support/wire.js';

const PAST = new Date('2020-01-01T00:00:00Z');

/** Overwrites a file and restores its modification time, as `tar`, `rsync -t` and `cp -p` do. */
function restore(path: string, bytes: string, time = PAST): void {
  writeFileSync(path, bytes);
  utimesSync(path, time, time);
}

for (const replaced of [false, true]) {
  test.serial(
    `a file ${replaced ? 'recreated' : 'overwritten'} with its old time and length is served with the new content`,
    async (t) => {
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
    },
  );
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

/** Changes the target of a link, as a deployment does. */
function point(link: string, target: string): void {
  symlinkSync(target, `${link}.new`);
  renameSync(`${link}.new`, link);
}

for (const symlinks of ['follow', 'beneath', 'deny'] as const) {
  test.serial(`a root that is switched to another release is noticed immediately: ${symlinks}`, async (t) => {
    const directory = scratch(t);
    for (const release of ['1', '2']) {
      mkdirSync(join(directory, release, 'sub'), { recursive: true });
      for (const name of ['index.html', 'a.txt', 'sub/index.html']) {
        writeFileSync(join(directory, release, name), `release ${release}`);
      }
      writeFileSync(join(directory, release, 'large.txt'), release.repeat(100_000));
    }
    writeFileSync(join(directory, '2/new.txt'), 'release 2');
    const root = join(directory, 'current');
    point(root, '1');
    settle();
    const all = await frontEnds(t, root, { symlinks, extensions: ['txt'] });
    const paths = ['/', '/a.txt', '/a', '/sub/', '/large.txt'];
    const check = async (release: string) => {
      for (const { name, port } of all) {
        for (const path of paths) {
          const { status, body } = await get(port, path);
          const expected = path === '/large.txt' ? release.repeat(100_000) : `release ${release}`;
          t.is(`${status} ${body.toString()}`, `200 ${expected}`, `${name} ${path}`);
        }
        t.is((await get(port, '/new.txt')).status, release === '1' ? 404 : 200, name);
      }
    };
    await check('1');
    await check('1');
    point(root, '2');
    await check('2');
    point(root, '1');
    await check('1');
    // The link is replaced by a directory, which is replaced by another one.
    unlinkSync(root);
    renameSync(join(directory, '2'), root);
    await check('2');
    renameSync(root, join(directory, '2'));
    renameSync(join(directory, '1'), root);
    await check('1');
  });
}

test.serial(
  'a file that was missing before the root was switched is found, although missing files are cached',
  async (t) => {
    const directory = scratch(t);
    mkdirSync(join(directory, '1'));
    mkdirSync(join(directory, '2'));
    writeFileSync(join(directory, '2/new.txt'), 'new');
    const root = join(directory, 'current');
    for (const symlinks of ['follow', 'beneath', 'deny'] as const) {
      point(root, '1');
      for (const { name, port } of await frontEnds(t, root, { symlinks, cache: { revalidate: 'never' } })) {
        t.is((await get(port, '/new.txt')).status, 404, name);
        t.is((await get(port, '/new.txt')).status, 404, name);
        point(root, '2');
        t.is((await get(port, '/new.txt')).status, 200, `${name} ${symlinks}`);
        point(root, '1');
      }
    }
  },
);

test.serial('a listing shows the directory that the root refers to now', async (t) => {
  const directory = scratch(t);
  for (const release of ['1', '2']) {
    mkdirSync(join(directory, release));
    writeFileSync(join(directory, release, `only-in-${release}`), '');
  }
  const root = join(directory, 'current');
  point(root, '1');
  const server = createFileServer({ root, list: true, symlinks: 'beneath', workers: 1 });
  t.teardown(() => server.close());
  const { port } = (await server.listen()) as { port: number };
  t.true((await get(port, '/')).body.includes('only-in-1'));
  point(root, '2');
  t.true((await get(port, '/')).body.includes('only-in-2'));
});

for (const symlinks of ['follow', 'beneath', 'deny'] as const) {
  fuseSerial(`a file system mounted again after its daemon has died is served: ${symlinks}`, async (t) => {
    const fs = await mount(t);
    writeFileSync(join(fs.backing, 'a.txt'), 'before');
    settle();
    const all = await frontEnds(t, fs.path, { symlinks });
    for (const { name, port } of all) {
      for (let turn = 0; turn < 2; turn += 1) t.is((await get(port, '/a.txt')).body.toString(), 'before', name);
    }
    await fs.kill();
    for (const { name, port } of all) t.is((await get(port, '/a.txt')).status, 500, name);
    writeFileSync(join(fs.backing, 'a.txt'), 'changed');
    await fs.remount();
    for (const { name, port } of all) {
      for (const path of ['/a.txt', '/none', '/a.txt']) {
        const { status, body } = await get(port, path);
        if (path === '/none') t.is(status, 404, name);
        else t.is(`${status} ${body.toString()}`, '200 changed', name);
      }
    }
  });
}

fuseSerial('a file changed without the FUSE mount is current at the next request', async (t) => {
  const fs = await mount(t, { entryTimeout: 60_000, attrTimeout: 0 });
  const behind = join(fs.backing, 'a.txt');
  writeFileSync(behind, 'version 1');
  settle();
  const all = await frontEnds(t, fs.path);
  const cache = new FileCache();
  t.teardown(() => cache.close());
  const check = async (expected: string) => {
    for (const { name, port } of all) t.is((await get(port, '/a.txt')).body.toString(), expected, name);
    t.is((await (await cache.get(join(fs.path, 'a.txt'))).read()).toString(), expected);
  };
  await check('version 1');
  await check('version 1');
  for (const text of ['version 2', 'another, longer version', 'short']) {
    writeFileSync(behind, text);
    await check(text);
    settle();
    await check(text);
  }
});

fuseSerial('a slow file system delays neither JavaScript nor other clients of a worker', async (t) => {
  const fs = await mount(t, { entryTimeout: 0, attrTimeout: 0 });
  const root = scratch(t);
  for (const directory of [fs.backing, root]) {
    mkdirSync(join(directory, 'sub'));
    for (const name of ['a.txt', 'a.txt.gz', 'sub/index.html']) writeFileSync(join(directory, name), `file ${name}`);
    writeFileSync(join(directory, 'large.txt'), 'x'.repeat(100_000));
  }
  symlinkSync(fs.path, join(root, 'slow'));
  settle();
  const seen: string[] = [];
  const setHeaders = (_: unknown, path: string) => void seen.push(path);
  const app = fastify();
  app.register(fastifyStatic, { root, setHeaders: (_, path) => void seen.push(path) });
  await app.listen({ port: 0, host: '127.0.0.1' });
  t.teardown(() => app.close());
  const hooked = fastify();
  hooked.addHook('onSend', async (_request, _reply, payload) => payload);
  hooked.register(fastifyStatic, { root, list: true, allowedPath: () => true, onFile: (path) => void seen.push(path) });
  await hooked.listen({ port: 0, host: '127.0.0.1' });
  t.teardown(() => hooked.close());
  const serve = createStaticHandler(root, { setHeaders });
  const plain = createServer((request, response) => serve(request, response)).listen(0, '127.0.0.1');
  t.teardown(() => void plain.close());
  const all = [
    ...(await frontEnds(t, root, { preCompressed: true, extensions: ['txt'] })),
    { name: 'plugin, setHeaders', port: (app.server.address() as { port: number }).port },
    { name: 'plugin, hooks', port: (hooked.server.address() as { port: number }).port },
    { name: 'handler, setHeaders', port: (plain.address() as { port: number }).port },
  ];
  // Fills the caches, including those of missing files.
  const paths = ['/a.txt', '/sub/', '/large.txt'];
  for (const { port } of all) {
    for (const path of paths) {
      for (const prefix of ['', '/slow', '', '/slow']) t.is((await get(port, prefix + path)).status, 200);
    }
  }
  for (const operation of ['lookup', 'getattr', 'open', 'flush'] as const) {
    const path = operation === 'open' || operation === 'flush' ? '/slow/large.txt' : '/slow/a.txt';
    for (const part of [all.slice(0, 3), all.slice(3)]) {
      await fs.set(operation, { delay: 800, times: part.length });
      const slow = part.map(({ port }) => get(port, path));
      await fs.held(operation);
      for (const { port } of part) t.is((await get(port, '/a.txt')).status, 200);
      t.true((await fs.count(operation)).waiting > 0, `others were served only after ${operation} had been answered`);
      for (const response of slow) t.is((await response).status, 200, operation);
      await fs.clear();
    }
  }
});

/** Sets the modification time, as `touch` does. */
function touch(path: string, seconds: number): void {
  const time = new Date(seconds * 1000);
  utimesSync(path, time, time);
}

test.serial('If-Range with the tag of the first response continues a download', async (t) => {
  const root = scratch(t);
  const bytes = 'x'.repeat(300_000);
  writeFileSync(join(root, 'a.bin'), bytes);
  settle(2100);
  for (const { name, port } of await frontEnds(t, root)) {
    const first = await get(port, '/a.bin', { Range: 'bytes=0-99' });
    t.is(first.status, 206, name);
    const tag = first.headers.etag as string;
    t.is(tag.startsWith('W/'), name !== 'server', `${name}: ${tag}`);
    const rest = await get(port, '/a.bin', { Range: 'bytes=50-', 'If-Range': tag });
    t.is(`${rest.status} ${rest.body.length}`, '206 299950', name);
    t.is((await get(port, '/a.bin', { 'If-None-Match': tag })).status, 304, name);
    t.is((await get(port, '/')).headers.etag, undefined);
  }
  // After two seconds the tag of a new file is strong; the weak tag still matches the same version.
  const [, , server] = await frontEnds(t, root);
  const { port } = server as { port: number };
  writeFileSync(join(root, 'new'), 'new');
  const young = (await get(port, '/new')).headers.etag as string;
  t.true(young.startsWith('W/'), young);
  t.is((await get(port, '/new', { Range: 'bytes=0-0', 'If-Range': young })).status, 200);
  settle(2100);
  const { headers, status } = await get(port, '/new', { 'If-None-Match': young });
  t.deepEqual([status, headers.etag], [304, young.slice(2)]);
  // Strong tags differ for versions with the same size and modification time.
  restore(join(root, 'new'), 'v1.');
  settle(2100);
  const before = (await get(port, '/new')).headers.etag as string;
  restore(join(root, 'new'), 'v2.');
  settle(2100);
  t.not((await get(port, '/new')).headers.etag, before);
  t.is((await get(port, '/new', { Range: 'bytes=0-0', 'If-Range': before })).status, 200);
});

test.serial("etag: 'strong' is the same in all front ends and for hard links", async (t) => {
  const root = scratch(t);
  writeFileSync(join(root, 'index.html'), 'index');
  settle(2100);
  const tags = new Set<string>();
  for (const { name, port } of await frontEnds(t, root, { etag: 'strong' })) {
    for (const path of ['/', '/index.html']) tags.add((await get(port, path)).headers.etag as string);
    const [tag = ''] = tags;
    t.regex(tag, /^"5-[\da-f]+-[\da-f]+"$/);
    t.is((await get(port, '/', { Range: 'bytes=0-1', 'If-Range': tag })).status, 206, name);
  }
  t.is(tags.size, 1, [...tags].join());
});

test.serial('an empty file is sent as a whole for any range', async (t) => {
  const root = scratch(t);
  writeFileSync(join(root, 'empty.txt'), '');
  for (const { name, port } of await frontEnds(t, root)) {
    for (const range of ['bytes=0-', 'bytes=0-99', 'bytes=-5', 'bytes=5-9, 12-']) {
      const { status, headers, body } = await get(port, '/empty.txt', { Range: range });
      t.deepEqual([status, headers['content-length'], body.length], [200, '0', 0], `${name} ${range}`);
    }
  }
});

test.serial('Last-Modified is not later than Date, and zero times are not validators', async (t) => {
  const root = scratch(t);
  const path = join(root, 'a.txt');
  const all = await frontEnds(t, root);
  const date = (value: string | undefined) => Date.parse(value as string);
  for (const seconds of [Date.now() / 1000 + 86_400, 4e9]) {
    writeFileSync(path, 'future');
    touch(path, seconds);
    for (const { name, port } of all) {
      const { headers } = await get(port, '/a.txt');
      t.true(date(headers['last-modified']) <= date(headers.date), `${name}: ${headers['last-modified']}`);
      const since = { 'If-Modified-Since': headers['last-modified'] as string };
      t.is((await get(port, '/a.txt', since)).status, 200, name);
      const range = { Range: 'bytes=0-1', 'If-Range': headers['last-modified'] as string };
      t.is((await get(port, '/a.txt', range)).status, 200, name);
    }
  }
  for (const seconds of [0, 1, -1, -86_400 * 365]) {
    const tags = new Map<string, string>();
    for (const text of ['version 1', 'version 2']) {
      writeFileSync(path, text);
      touch(path, seconds);
      settle();
      for (const { name, port } of all) {
        const { headers } = await get(port, '/a.txt');
        t.is(headers['last-modified'], undefined, `${name} ${seconds}`);
        t.not(headers.etag, tags.get(name), `${name} ${seconds}: another version`);
        tags.set(name, headers.etag as string);
        const unchanged = new Date(Date.now()).toUTCString();
        t.is((await get(port, '/a.txt', { 'If-Modified-Since': unchanged })).status, 200, name);
        t.is((await get(port, '/a.txt', { Range: 'bytes=0-1', 'If-Range': unchanged })).status, 200, name);
        t.is((await get(port, '/a.txt', { 'If-None-Match': headers.etag as string })).status, 304, name);
      }
    }
  }
});

test.serial('files without a meaningful size are served completely', async (t) => {
  const version = readFileSync('/proc/version', 'utf8');
  for (const { name, port } of await frontEnds(t, '/proc')) {
    for (let turn = 0; turn < 2; turn += 1) {
      const whole = await get(port, '/version');
      t.deepEqual([whole.status, whole.body.toString()], [200, version], name);
      t.is(whole.headers['last-modified'], undefined, name);
      const same = await get(port, '/version', { 'If-None-Match': whole.headers.etag as string });
      t.is(same.status, 304, name);
    }
    const part = await get(port, '/version', { Range: 'bytes=0-4' });
    t.deepEqual([part.status, part.body.toString()], [206, 'Linux'], name);
    t.is((await get(port, '/version', {}, 'HEAD')).headers['content-length'], String(version.length), name);
  }
  for (const { name, port } of await frontEnds(t, '/sys/kernel/mm', { cache: false })) {
    const path = '/transparent_hugepage/enabled';
    const { body } = await get(port, path);
    t.is(body.toString(), readFileSync(`/sys/kernel/mm${path}`, 'utf8'), name);
  }
  const cache = new FileCache();
  t.teardown(() => cache.close());
  const file = await cache.get('/proc/version');
  t.is((await file.read()).toString(), version);
  t.is(file.size, version.length);
  t.like(cache.stats(), { files: 0, rejected: 1 });
  await cache.get('/proc/uptime');
  t.is((await cache.get('/proc/uptime')).hits, 0, 'read again each time');
});

fuseSerial('files of a file system that reports size 0 are read', async (t) => {
  const fs = await mount(t, { zeroSize: true, directIo: true });
  const path = join(fs.path, 'a.txt');
  const bytes = pattern(200_000);
  writeFileSync(join(fs.backing, 'a.txt'), bytes);
  writeFileSync(join(fs.backing, 'empty.txt'), '');
  settle();
  for (const { name, port } of await frontEnds(t, fs.path)) {
    t.deepEqual((await get(port, '/a.txt')).body, bytes, name);
    t.is((await get(port, '/empty.txt')).headers['content-length'], '0', name);
  }
  const cache = new FileCache();
  t.teardown(() => cache.close());
  t.deepEqual(await (await cache.get(path)).read(), bytes);
  const { server, client } = await pair(t);
  const received = readExactly(client, bytes.length);
  t.is((await sendFile(server, path)).bytes, bytes.length);
  t.deepEqual(await received, bytes);
});
