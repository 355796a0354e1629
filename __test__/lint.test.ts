/** The checks of `npm run lint` that are implemented in this repository. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import test from 'ava';

import { cycles, problems, rustGraph, typescriptGraph, usePaths } from '../scripts/lint/graph.js';
import { ROOT } from '../scripts/run.js';

/** Creates a folder with these files. Its path ends with a slash. */
function tree(files: Record<string, string>): string {
  const base = mkdtempSync(path.join(tmpdir(), 'zerosend-lint-'));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(base, name)), { recursive: true });
    writeFileSync(path.join(base, name), text);
  }
  return `${base}/`;
}

test('use trees are expanded', (t) => {
  t.deepEqual(usePaths('crate::a::{self, b::{C as D, E}, f::*}'), [
    ['crate', 'a'],
    ['crate', 'a', 'b', 'C'],
    ['crate', 'a', 'b', 'E'],
    ['crate', 'a', 'f', '*'],
  ]);
});

test('a Rust import refers to the file that defines the name', (t) => {
  const base = tree({
    'src/lib.rs': 'mod a;\nmod b;\n',
    'src/a/mod.rs': 'mod inner;\npub use inner::Thing;\n',
    'src/a/inner.rs':
      '// use crate::b::Other;\npub struct Thing;\n#[cfg(test)]\nmod tests {\n    use crate::b::Other;\n}\n',
    'src/b.rs': 'use crate::a::Thing;\npub struct Other(crate::a::inner::More);\n',
  });
  t.deepEqual([...(rustGraph('src', base).get('src/b.rs') ?? [])], ['src/a/inner.rs']);
  t.deepEqual([...(rustGraph('src', base).get('src/a/inner.rs') ?? [])], []);
  rmSync(base, { recursive: true });
});

test('import cycles between folders are reported, in Rust and in TypeScript', (t) => {
  const rust = tree({
    'src/a/mod.rs': 'pub mod one;\n',
    'src/a/one.rs': 'use crate::b::Two;\npub struct One;\n',
    'src/b/mod.rs': 'pub struct Two(super::a::one::One);\n',
  });
  const typescript = tree({
    'lib/a/one.ts': "import type { Two } from '../b/two.js';\nexport type One = Two;\n",
    'lib/b/two.ts': "export type { One } from '../a/one.js';\n",
  });
  const allowed = { a: ['b'], b: ['a'] };
  t.deepEqual(problems('src', rustGraph('src', rust), allowed), ['folders in src import each other: a, b']);
  t.deepEqual(problems('lib', typescriptGraph('lib', typescript), allowed), ['folders in lib import each other: a, b']);
  rmSync(rust, { recursive: true });
  rmSync(typescript, { recursive: true });
});

test('an import that the layers do not allow is reported', (t) => {
  const base = tree({ 'lib/a/one.ts': "import '../b/two.js';\n", 'lib/b/two.ts': '' });
  const found = problems('lib', typescriptGraph('lib', base), { a: [] });
  t.deepEqual(found, ['lib/a/one.ts may not import lib/b/two.ts: a -> b is not in scripts/lint/layers.ts']);
  rmSync(base, { recursive: true });
});

test('an import cycle in a folder of more than three files is reported', (t) => {
  const files = Object.fromEntries(
    ['a', 'b', 'c'].map((name, at) => [`lib/x/${name}.ts`, `import './${'bca'[at]}.js';\n`]),
  );
  const three = tree(files);
  t.deepEqual(problems('lib', typescriptGraph('lib', three), {}), []);
  t.deepEqual(cycles(typescriptGraph('lib', three)), [['lib/x/a.ts', 'lib/x/b.ts', 'lib/x/c.ts']]);
  const four = tree({ ...files, 'lib/x/d.ts': '' });
  t.deepEqual(problems('lib', typescriptGraph('lib', four), {}), [
    'files import each other: lib/x/a.ts, lib/x/b.ts, lib/x/c.ts',
  ]);
  rmSync(three, { recursive: true });
  rmSync(four, { recursive: true });
});

test('phrases that are not plain English are reported with a remedy', (t) => {
  const base = tree({ 'a.md': 'A client waits.\nWhoever waits, waits for ever.\n' });
  const { status, stderr } = spawnSync(process.execPath, ['--import=tsx', 'scripts/lint/words.ts', `${base}a.md`], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  t.is(status, 1);
  t.regex(stderr, /a\.md:2: 'Whoever': write /);
  t.regex(stderr, /a\.md:2: 'for ever': write /);
  t.notRegex(stderr, /a\.md:1/);
  rmSync(base, { recursive: true });
});
