/** FileCache and CachedFile, and the cache of the plugin. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, renameSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import fastify from 'fastify';
import {
  type CachedFile,
  createFileServer,
  createStaticHandler,
  FileCache,
  type FileCacheOptions,
  sendFile,
  sendFiles,
} from 'zerosend';
import fastifyStatic, { type FastifyStaticOptions } from 'zerosend/fastify';

import { pattern, scratch, settle, sha256, until } from './support/files.js';
import { exchange, pair, parseResponses, portOf, readAll } from './support/wire.js';

/** A file that is old enough to be cached. */
function oldFile(path: string, bytes: Buffer | string, second = 1_000_000): string {
  writeFileSync(path, bytes);
  utimesSync(path, second, second);
  settle();
  return path;
}

test.serial('get, read, hits, stats, and entries in order of last use', async (t) => {
  const directory = scratch(t);
  const cache = new FileCache({ maxFiles: 2 });
  const a = oldFile(join(directory, 'a'), 'hello');
  const b = oldFile(join(directory, 'b'), pattern(100_000));
  const c = oldFile(join(directory, 'c'), 'third');
  const file = await cache.get(a);
  t.like(file, { path: a, size: 5, mtimeMs: 1e9, hits: 0 });
  t.regex(file.etag, /^W\/"5-/);
  t.true(file.ino > 0);
  t.is((await file.read()).toString(), 'hello');
  t.is((await file.read(1, 3)).toString(), 'ell');
  await t.throwsAsync(file.read(3, 3), { code: 'ERR_ZEROSEND_OUT_OF_RANGE' });
  t.deepEqual(await (await cache.get(b)).read(4, 8), pattern(12).subarray(4));
  t.is((await cache.get(a)).hits, 1);
  t.deepEqual(
    cache.entries().map(({ path, mapped }) => [path, mapped]),
    [
      [a, false],
      [b, true],
    ],
  );
  await cache.get(c);
  t.deepEqual(
    cache.entries().map(({ path }) => path),
    [c, a],
    'b was used longest ago',
  );
  t.like(cache.stats(), {
    files: 2,
    bytes: 10,
    mapped: 0,
    hits: 1,
    misses: 3,
    evictions: 1,
    revalidations: 1,
    hitRate: 0.25,
  });
  t.true(cache.invalidate(a));
  t.false(cache.invalidate(a));
  cache.clear();
  t.is(cache.stats().files, 0);
  await t.throwsAsync(cache.get(join(directory, 'none')), { code: 'ENOENT' });
  await t.throwsAsync(cache.get(directory), { code: 'ERR_ZEROSEND_NOT_REGULAR_FILE' });
  cache.close();
  cache.close();
  await t.throwsAsync(cache.get(a), { code: 'ERR_ZEROSEND_CLOSED' });
  t.is(cache.stats().misses, 5);
  t.deepEqual(cache.entries(), []);
  t.is((await file.read()).toString(), 'hello', 'a CachedFile stays valid');
});

test.serial('a cached file is sent after eviction, replacement and deletion', async (t) => {
  const directory = scratch(t);
  const cache = new FileCache();
  const files: [CachedFile, Buffer][] = [];
  for (const size of [0, 10, 65_536, 65_537, 3_000_000]) {
    files.push([await cache.get(oldFile(join(directory, String(size)), pattern(size, size))), pattern(size, size)]);
  }
  cache.close();
  for (const [file] of files) rmSync(file.path);
  for (const method of ['auto', 'sendfile', 'mmap', 'read-write', 'splice', 'vmsplice'] as const) {
    for (const [file, bytes] of files) {
      const { server, client } = await pair(t);
      const received = readAll(client);
      await sendFile(server, file, { method, head: 'h' });
      await sendFiles(server, [Buffer.from('x'), { file, offset: Math.min(5, file.size) }, Buffer.from('y')], {
        method,
      });
      server.end();
      const rest = bytes.subarray(Math.min(5, bytes.length));
      const all = Buffer.concat([Buffer.from('h'), bytes, Buffer.from('x'), rest, Buffer.from('y')]);
      t.is(sha256(await received), sha256(all), `${method} ${file.size}`);
    }
  }
});

test.serial('a cached file that is truncated is an error', async (t) => {
  const directory = scratch(t);
  const path = oldFile(join(directory, 'file'), pattern(4_000_000));
  const cache = new FileCache();
  const file = await cache.get(path);
  truncateSync(path, 1000);
  await t.throwsAsync(file.read(), { code: 'ERR_ZEROSEND_TRUNCATED' });
  for (const method of ['auto', 'mmap'] as const) {
    const { server, client } = await pair(t);
    client.on('error', () => {}).resume();
    await t.throwsAsync(sendFile(server, file, { method }), { code: 'ERR_ZEROSEND_TRUNCATED' });
    t.true(server.destroyed, 'the connection of an incomplete transfer is closed');
  }
  t.is((await cache.get(path)).size, 1000);
  t.is(cache.stats().stale, 1);
});

test.serial('preload: files and directories, progress, errors, abort', async (t) => {
  const directory = scratch(t);
  for (const folder of ['x', 'x/y', 'empty']) mkdirSync(join(directory, folder));
  for (let at = 0; at < 200; at++) oldFile(join(directory, at % 2 ? 'x' : 'x/y', `file${at}`), `file ${at}`);
  const cache = new FileCache();
  const progress: { loaded: number; total: number }[] = [];
  const result = await cache.preload([directory, join(directory, 'none')], {
    concurrency: 8,
    onProgress: (now) => progress.push(now),
  });
  t.is(result.loaded, 200);
  t.deepEqual(
    result.failed.map(({ path, error }) => [path, (error as NodeJS.ErrnoException).code]),
    [[join(directory, 'none'), 'ENOENT']],
  );
  t.like(progress.at(-1), { loaded: 200, failed: 1, total: 201 });
  t.is(cache.stats().files, 200);
  const controller = new AbortController();
  const other = new FileCache();
  const stopped = other.preload(directory, {
    signal: controller.signal,
    concurrency: 1,
    onProgress: ({ loaded }) => loaded === 20 && controller.abort(),
  });
  await t.throwsAsync(stopped, { code: 'ABORT_ERR' });
  t.is(other.stats().files, 20);
  await t.throwsAsync(cache.preload(directory, { concurrency: 0 }), { message: /invalid concurrency 0/ });
});

test('invalid options are named with their value and a remedy', (t) => {
  const wrong = (options: object, message: RegExp) =>
    t.throws(() => new FileCache(options as FileCacheOptions), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT', message });
  wrong({ maxFiles: 0 }, /invalid maxFiles 0: use an integer from 1 up/);
  wrong({ maxBytes: 1.5 }, /invalid maxBytes 1.5/);
  wrong({ revalidate: 'sometimes' }, /invalid revalidate 'sometimes': use 'always', 'never' or milliseconds/);
  wrong({ advice: 'maybe' }, /invalid advice 'maybe': use one of normal, sequential, random, willneed/);
  wrong({ maxfiles: 1 }, /unknown cache option 'maxfiles': use one of maxFiles, /);
  wrong({ populate: 1 }, /invalid populate 1/);
  t.throws(() => createFileServer({ root: '.', cache: 5 as unknown as boolean }), { message: /invalid cache 5/ });
});

async function serve(t: ExecutionContext, options: FastifyStaticOptions) {
  const app = fastify();
  await app.register(fastifyStatic, options);
  await app.listen({ port: 0, host: '127.0.0.1' });
  t.teardown(() => app.close());
  const get = async (path: string) => {
    const bytes = await exchange(portOf(app.server), `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    const [answer] = parseResponses(bytes);
    if (answer === undefined) throw new Error('no answer');
    return answer;
  };
  return { app, get, port: portOf(app.server) };
}

test.serial('the plugin serves current files: replaced, rewritten, truncated, deleted, recreated', async (t) => {
  const root = scratch(t);
  const path = join(root, 'file.txt');
  for (const cache of [undefined, true, new FileCache({ maxFileSize: 10_000_000 }), false]) {
    const { get, app } = await serve(t, { root, cache });
    for (const size of [10, 50_000, 200_000]) {
      const expect = async (bytes: Buffer | undefined, what: string) => {
        for (let at = 0; at < 3; at++) {
          const { status, body } = await get('/file.txt');
          t.is(status, bytes === undefined ? 404 : 200, what);
          if (bytes !== undefined) t.is(sha256(body), sha256(bytes), `${what} ${size}`);
        }
      };
      oldFile(path, pattern(size, 1), 1000);
      await expect(pattern(size, 1), 'first');
      renameSync(oldFile(`${path}.new`, pattern(size, 2), 1000), path);
      await expect(pattern(size, 2), 'replaced by one of the same time and size');
      writeFileSync(path, pattern(size, 3));
      await expect(pattern(size, 3), 'rewritten in place');
      truncateSync(path, size / 2);
      await expect(pattern(size, 3).subarray(0, size / 2), 'truncated');
      rmSync(path);
      await expect(undefined, 'deleted');
      oldFile(path, pattern(size, 4), 2000);
      await expect(pattern(size, 4), 'made again');
    }
    const { cache: stats } = app.zerosend.stats();
    if (cache === false) t.is(stats, null);
    else t.true((stats?.hits ?? 0) > 0 && (stats?.stale ?? 0) > 0, JSON.stringify(stats));
  }
});

test.serial('a link that leaves the root is refused although its target is cached', async (t) => {
  const root = scratch(t);
  const outside = oldFile(join(scratch(t), 'secret'), 'secret');
  const path = join(root, 'file.txt');
  const { get } = await serve(t, { root, symlinks: 'beneath' });
  oldFile(path, 'public');
  t.is((await get('/file.txt')).status, 200);
  t.is((await get('/file.txt')).status, 200);
  rmSync(path);
  spawnSync('ln', ['-s', outside, path]);
  t.is((await get('/file.txt')).status, 403);
  t.is((await get('/file.txt')).status, 403);
});

test.serial('several front ends share a cache', async (t) => {
  const root = scratch(t);
  oldFile(join(root, 'a.txt'), 'hello');
  const cache = new FileCache();
  const { app, get } = await serve(t, { root, cache });
  const handler = createStaticHandler(root, { cache });
  const server = createFileServer({ root, cache });
  const address = await server.listen();
  t.is((await get('/a.txt')).body.toString(), 'hello');
  t.is(await (await fetch('url' in address ? `${address.url}a.txt` : '')).text(), 'hello');
  t.is(cache.stats().files, 2, 'each root has a separate entry: the rules for links may differ');
  await server.close();
  handler.close();
  await app.close();
  t.is((await cache.get(join(root, 'a.txt'))).size, 5, 'the shared cache stays open');
  cache.close();
});

test.serial('truncating a file while it is sent closes the connection', async (t) => {
  const root = scratch(t);
  const path = oldFile(join(root, 'big'), pattern(12_000_000));
  const { port, app } = await serve(t, { root, cache: true });
  const client = connect(port, '127.0.0.1').on('error', () => {});
  client.write('GET /big HTTP/1.1\r\nHost: x\r\n\r\n');
  await new Promise((resolve) => client.once('readable', resolve));
  truncateSync(path, 100_000);
  const bytes = await readAll(client).catch(() => Buffer.alloc(0));
  t.true(bytes.length < 12_000_000);
  await until(() => app.zerosend.stats().aborted === 1);
});

test('an unreachable CachedFile is garbage collected', (t) => {
  const program = `
    import { readdirSync, writeFileSync, mkdtempSync } from 'node:fs';
    import { setTimeout } from 'node:timers/promises';
    import { FileCache } from '${import.meta.resolve('zerosend')}';
    const path = mkdtempSync('/tmp/zerosend-test-') + '/file';
    writeFileSync(path, Buffer.alloc(100000));
    await setTimeout(70);
    const count = () => readdirSync('/proc/self/fd').length;
    const cache = new FileCache();
    await cache.get(path);
    cache.clear();
    for (let at = 0; at < 50; at++) { gc(); await setTimeout(10); }
    const before = count();
    await (async () => { for (let at = 0; at < 50; at++) { await cache.get(path); cache.clear(); } })();
    const held = count() - before;
    for (let at = 0; at < 100 && count() > before; at++) { gc(); await setTimeout(10); }
    console.log(held > 10, count() - before);
  `;
  const { stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', program]);
  t.is(String(stdout).trim(), 'true 0', String(stderr));
});
