/** Directory listings show only what the site serves, even if directories are replaced by links. */
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import fastify, { type FastifyInstance } from 'fastify';
import fastifyStatic, { type FastifyStaticOptions } from 'zerosend/fastify';

import { openDescriptors, scratch, settled } from '../support/files.js';

function tree(t: ExecutionContext): { root: string; outside: string } {
  const base = scratch(t);
  const [root, outside] = [join(base, 'root'), join(base, 'outside')] as const;
  for (const directory of [root, outside, join(root, 'dir'), join(root, 'dir', '.dot'), join(root, 'dir', 'sub')]) {
    mkdirSync(directory);
  }
  writeFileSync(join(root, 'dir', 'own.txt'), '1');
  writeFileSync(join(root, 'dir', 'sub', 'below.txt'), '22');
  writeFileSync(join(root, 'dir', '.dot', 'hidden.txt'), 'x'.repeat(1000));
  mkdirSync(join(outside, 'deep'));
  writeFileSync(join(outside, 'secret.txt'), 'y'.repeat(100_000));
  writeFileSync(join(outside, 'deep', 'secret.txt'), 'y'.repeat(100_000));
  symlinkSync(outside, join(root, 'dir', 'out'));
  symlinkSync(join(outside, 'secret.txt'), join(root, 'dir', 'out.txt'));
  symlinkSync('sub', join(root, 'dir', 'in'));
  return { root, outside };
}

async function plugin(t: ExecutionContext, options: FastifyStaticOptions): Promise<FastifyInstance> {
  const app = fastify();
  t.teardown(() => app.close());
  await app.register(fastifyStatic, options);
  await app.ready();
  return app;
}

for (const symlinks of ['deny', 'beneath', 'follow'] as const) {
  test(`symlinks: '${symlinks}': listings and totals contain what is served`, async (t) => {
    const { root } = tree(t);
    const before = openDescriptors();
    const list: FastifyStaticOptions['list'] = { extendedFolderInfo: true, jsonFormat: 'extended', names: ['/'] };
    const app = await plugin(t, { root, list, symlinks, dotfiles: 'ignore' });
    const { dirs, files } = (await app.inject('/dir/')).json();
    const names = (entries: { name: string }[]) => entries.map(({ name }) => name);
    const linked = { deny: [], beneath: ['in'], follow: ['in', 'out'] }[symlinks];
    t.deepEqual(names(dirs), [...linked, 'sub']);
    t.deepEqual(names(files), symlinks === 'follow' ? ['out.txt', 'own.txt'] : ['own.txt']);
    const above = (await app.inject('/')).json().dirs[0].extendedInfo;
    t.is(above.fileCount, symlinks === 'follow' ? 2 : 1);
    t.is(above.folderCount, 1 + linked.length);
    t.is(above.totalSize < 100_000, symlinks !== 'follow', 'files outside the root are not counted');
    t.true(above.totalSize < 1000 || symlinks === 'follow', 'hidden directories are not counted');
    // Exactly the listed entries are served.
    for (const name of ['sub', 'in', 'out', '.dot']) {
      const { statusCode } = await app.inject(`/dir/${name}/`);
      t.is(statusCode === 200, [...linked, 'sub'].includes(name), name);
    }
    await settled(t, before);
  });
}

for (const symlinks of ['deny', 'beneath'] as const) {
  test.serial(`symlinks: '${symlinks}': a directory that is repeatedly replaced by a link`, async (t) => {
    const { root, outside } = tree(t);
    const before = openDescriptors();
    const [there, kept, link] = [join(root, 'dir'), join(root, 'kept'), join(root, 'link')] as const;
    const list: FastifyStaticOptions['list'] = { extendedFolderInfo: true, jsonFormat: 'extended', names: ['/'] };
    const app = await plugin(t, { root, list, symlinks });
    let ended = false;
    const swap = (async () => {
      for (let at = 0; !ended; at += 1) {
        symlinkSync(outside, link);
        renameSync(there, kept);
        renameSync(link, there);
        await new Promise((resolve) => setImmediate(resolve));
        rmSync(there);
        renameSync(kept, there);
        if (at % 2 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    const seen = { listed: 0, refused: 0 };
    for (let at = 0; at < 1500; at += 1) {
      const paths = ['/dir/', '/'];
      const responses = await Promise.all(paths.map((path) => app.inject(path)));
      for (const { statusCode, payload } of responses) {
        if (statusCode === 200) seen.listed += 1;
        else seen.refused += 1;
        t.false(payload.includes('secret'), payload);
        const { dirs = [] } = statusCode === 200 ? JSON.parse(payload) : {};
        for (const { extendedInfo } of dirs) {
          if ((extendedInfo?.totalSize ?? 0) >= 100_000) t.fail(`${payload}`);
        }
      }
    }
    ended = true;
    await swap;
    t.true(seen.listed > 0);
    await settled(t, before);
  });
}
