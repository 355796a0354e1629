/**
 * File systems that find a file by other spellings of its name, as on macOS and Windows. This process simulates one: paths are looked up
 * without regard to case and Unicode normalization.
 */

import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import promises from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';

import test from 'ava';
import { siteSettings } from '../dist/lib/static/site-settings.js';
import { Both, type EngineRequest } from './support/both-engines.js';
import { scratch } from './support/files.js';

const fold = (name: string) => name.normalize('NFD').toLowerCase();

/** The path with the names in the directories; missing names are unchanged. */
function stored(path: unknown): unknown {
  if (typeof path !== 'string') return path;
  let found = '';
  for (const name of path.split('/').filter((part) => part !== '')) {
    let names: string[] = [];
    try {
      names = readdirSync(found === '' ? '/' : found);
    } catch {
      // The directory does not exist.
    }
    const same = names.includes(name) ? name : names.find((other) => fold(other) === fold(name));
    found = `${found}/${same ?? name}`;
  }
  return path.endsWith('/') ? `${found}/` : found;
}

/** Whether `realpath` works: some file systems of Windows do not support it. */
let realpathWorks = true;
const functions = promises as unknown as Record<string, (path: unknown, ...rest: unknown[]) => Promise<unknown>>;
for (const name of ['open', 'stat', 'lstat', 'readlink', 'realpath', 'readdir']) {
  const original = functions[name] as (path: unknown, ...rest: unknown[]) => Promise<unknown>;
  functions[name] = async (path, ...rest) => {
    if (name === 'realpath' && !realpathWorks) throw Object.assign(new Error('EISDIR'), { code: 'EISDIR' });
    return await original(stored(path), ...rest);
  };
}
syncBuiltinESMExports();

const ROWS: [string, string][] = [
  ['/a.txt', 'response'],
  ['/A.TXT', 'not-found'],
  ['/a.TXT', 'not-found'],
  ['/dir/', 'response'],
  ['/dir', 'response'],
  ['/Dir/', 'not-found'],
  ['/DIR', 'not-found'],
  ['/dir/INDEX.HTML', 'not-found'],
  ['/Dir/index.html', 'not-found'],
  ['/%c3%a9.txt', 'response'],
  ['/e%cc%81.txt', 'not-found'],
  ['/%C3%89.txt', 'not-found'],
  ['/link', 'response'],
  ['/LINK', 'not-found'],
  ['/folder/index.html', 'response'],
  ['/Folder/index.html', 'not-found'],
  ['/folder/Index.html', 'not-found'],
  ['/page', 'response'],
  ['/PAGE', 'not-found'],
  ['/z.js', 'response'],
  ['/nope', 'not-found'],
];

for (const source of ['realpath', 'directory listings']) {
  test.serial(`another spelling of a name is not found, as on Linux: names from ${source}`, async (t) => {
    realpathWorks = source === 'realpath';
    const root = scratch(t);
    for (const name of ['a.txt', 'dir/index.html', '\u00e9.txt', 'page.html', 'z.js', 'z.js.GZ']) {
      mkdirSync(join(root, name, '..'), { recursive: true });
      writeFileSync(join(root, name), name);
    }
    symlinkSync('a.txt', join(root, 'link'));
    symlinkSync('dir', join(root, 'folder'));
    for (const symlinks of ['follow', 'beneath'] as const) {
      const options = { cache: false, symlinks, extensions: 'html', preCompressed: true };
      const both = new Both(siteSettings([root], options, false));
      for (const [path, kind] of ROWS) {
        const request: EngineRequest = { path, conditions: { acceptEncoding: 'gzip' } };
        const [native, portable] = await both.send(request);
        t.is(portable.answer?.kind, kind as never, `${symlinks} ${path}`);
        t.deepEqual({ ...portable }, { ...native }, `${symlinks} ${path}`);
      }
      both.close();
    }
    // The same applies to names passed by the application.
    const both = new Both(siteSettings([root], { cache: false, index: ['Index.html'], fallback: 'A.txt' }, false));
    for (const path of ['/dir/', '/nope']) {
      const [native, portable] = await both.send({ path });
      t.not(portable.answer?.kind, 'response', path);
      t.deepEqual(portable, native, path);
    }
    both.close();
  });
}
