/** Releases: the CHANGELOG, the inspection of binaries, the workflows, and complete runs of scripts/release.ts. */
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { binaryName, ownTarget, TARGETS } from '../lib/runtime/binary.js';
import { PACKAGE_ROOT, VERSION } from '../lib/util/package.js';
import { notes, released } from '../scripts/release/changelog.js';
import { inspect } from '../scripts/release/inspect.js';
import { scratch } from './support/files.js';
import { quickly } from './support/release.js';

const CHANGELOG = '# Changes\n\n## Unreleased\n\n### Added\n\n- This.\n\n## 0.1.0 - 2026-01-02\n\n- That.\n';

test('the section Unreleased of the CHANGELOG becomes a version', (t) => {
  t.is(notes(CHANGELOG, 'Unreleased'), '### Added\n\n- This.\n');
  t.is(notes(CHANGELOG, '0.1.0'), '- That.\n');
  const next = released(CHANGELOG, '0.2.0', '2026-03-04');
  t.is(notes(next, '0.2.0'), '### Added\n\n- This.\n');
  t.is(notes(next, '0.1.0'), '- That.\n');
  t.throws(() => notes(next, 'Unreleased'), { message: /the section Unreleased of CHANGELOG\.md is empty/ });
  t.throws(() => released(next, '0.3.0', '2026-03-05'), {
    message: /the section Unreleased of CHANGELOG\.md is empty/,
  });
  t.throws(() => notes(next, '0.1'), { message: /no heading for 0\.1/ });
});

test('binaries that do not match their target or link foreign libraries are rejected', (t) => {
  const own = path.join(PACKAGE_ROOT, binaryName(ownTarget()));
  const facts = inspect(own, '99');
  t.deepEqual(facts.faults, []);
  if (facts.glibc !== '') t.deepEqual(inspect(own, '2.0').faults, [`it needs glibc ${facts.glibc}, not 2.0`]);
  // The binary under the name of another target.
  const directory = scratch(t);
  const wrong = (target: string) => {
    const file = path.join(directory, binaryName(target));
    copyFileSync(own, file);
    return inspect(file, '99').faults.join();
  };
  t.regex(wrong(process.arch === 'arm64' ? 'linux-x64-gnu' : 'linux-arm64-gnu'), /^it is for /);
  t.regex(wrong(`linux-${process.arch}-musl`), /it needs .*libc\.so\.6.*it needs glibc/);
  const foreign = path.join(directory, binaryName(ownTarget()));
  copyFileSync(execFileSync('sh', ['-c', 'readlink -f "$(command -v openssl)"'], { encoding: 'utf8' }).trim(), foreign);
  t.regex(inspect(foreign, '99').faults.join(), /it needs lib(ssl|crypto).*it is not a Node module/);
});

test('workflows set permissions per job, pin actions by hash, and use existing scripts', (t) => {
  const directory = path.join(PACKAGE_ROOT, '.github/workflows');
  for (const name of readdirSync(directory)) {
    const text = readFileSync(path.join(directory, name), 'utf8');
    t.regex(text, /^permissions: \{\}$/m, name);
    for (const [, action = ''] of text.matchAll(/uses: (\S+)/g)) t.regex(action, /^[\w-]+\/[\w-]+@[0-9a-f]{40}$/, name);
    for (const [script = ''] of text.matchAll(/scripts\/[\w/-]+\.(ts|mjs|txt)/g)) {
      t.true(existsSync(path.join(PACKAGE_ROOT, script)), `${name}: ${script}`);
    }
    t.false(/secrets\./.test(text), name);
  }
  const release = readFileSync(path.join(directory, 'release.yml'), 'utf8');
  for (const target of TARGETS) t.true(release.includes(`target: ${target},`), target);
});

/** A clone with a local remote, in which all files of the working tree are committed. */
function clone(t: ExecutionContext) {
  const base = scratch(t);
  const [origin, directory] = [path.join(base, 'origin.git'), path.join(base, 'clone')];
  const git = (...args: string[]) => execFileSync('git', ['-C', directory, ...args], { encoding: 'utf8' }).trim();
  mkdirSync(directory);
  // The files of the working tree, committed or not.
  const files = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: PACKAGE_ROOT,
    encoding: 'utf8',
  });
  for (const file of files.split('\0').filter((name) => name !== '' && existsSync(path.join(PACKAGE_ROOT, name)))) {
    mkdirSync(path.dirname(path.join(directory, file)), { recursive: true });
    copyFileSync(path.join(PACKAGE_ROOT, file), path.join(directory, file));
  }
  symlinkSync(path.join(PACKAGE_ROOT, 'node_modules'), path.join(directory, 'node_modules'));
  git('init', '--quiet', '--initial-branch', 'main');
  git('config', 'user.name', 'Test');
  git('config', 'user.email', 'test@example.org');
  // `node_modules` is a symbolic link here, which the pattern `node_modules/` does not match.
  writeFileSync(path.join(directory, '.git/info/exclude'), 'node_modules\n');
  git('add', '--all');
  git('commit', '--quiet', '--message', 'All');
  execFileSync('git', ['clone', '--quiet', '--bare', directory, origin]);
  git('remote', 'add', 'origin', origin);
  // Without zig, for this machine only.
  const release = (...args: string[]) =>
    new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
      const options = { cwd: directory, env: { ...process.env, ...quickly('test-release') }, maxBuffer: 2 ** 26 };
      execFile(
        path.join(PACKAGE_ROOT, 'node_modules/.bin/tsx'),
        ['scripts/release.ts', ...args],
        options,
        (error, stdout, stderr) => resolve({ code: error?.code ?? 0, stdout, stderr }),
      );
    });
  return { directory, origin, git, release };
}

test('scripts/release.ts rejects invalid versions and states', async (t) => {
  const { directory, git, release } = clone(t);
  const refused = async (args: string[], message: RegExp) => {
    const { code, stderr } = await release(...args, '--dry-run');
    t.regex(stderr, message);
    t.is(code, 1);
  };
  await refused([], /usage: /);
  await refused(['next'], /invalid version 'next'/);
  await refused(['0.0.1'], /0\.0\.1 is older than /);
  git('tag', `v${VERSION}`);
  await refused([VERSION], /tag v\S+ already exists/);
  writeFileSync(path.join(directory, 'index.ts'), '');
  await refused(['99.0.0'], /uncommitted changes/);
  git('checkout', '--quiet', 'index.ts');
  writeFileSync(path.join(directory, 'CHANGELOG.md'), CHANGELOG.replace('### Added\n\n- This.\n\n', ''));
  git('commit', '--quiet', '--all', '--message', 'Nothing');
  await refused(['99.0.0'], /the section Unreleased of CHANGELOG\.md is empty/);
  git('switch', '--quiet', '--create', 'other');
  await refused(['99.0.0'], /releases are made from main/);
});

test('scripts/release.ts makes a dry run and a release', async (t) => {
  // It compiles everything from scratch.
  t.timeout(600_000);
  const { directory, origin, git, release } = clone(t);
  const before = git('rev-parse', 'HEAD');
  const pushed = (ref: string) =>
    spawnSync('git', ['-C', origin, 'rev-parse', '--quiet', '--verify', `${ref}^{commit}`], {
      encoding: 'utf8',
    }).stdout.trim();

  const dry = await release('99.0.0', '--dry-run');
  t.is(dry.code, 0, dry.stderr);
  t.regex(dry.stdout, /: 4 MiB by sendfile\n/);
  t.regex(dry.stdout, /^dry run: nothing was pushed$/m);
  const made = ['NOTES.md', 'SHA256SUMS', 'zerosend-99.0.0.cdx.json', 'zerosend-99.0.0.tgz'];
  const files = () => readdirSync(path.join(directory, 'release')).filter((name) => !name.endsWith('.node'));
  t.deepEqual(files().sort(), made);
  t.true(existsSync(path.join(directory, 'release', binaryName(ownTarget()))));
  t.deepEqual([git('rev-parse', 'HEAD'), git('status', '--porcelain'), git('tag', '--list')], [before, '', '']);
  t.is(pushed('main'), before);

  const real = await release('99.0.0');
  t.is(real.code, 0, real.stderr);
  t.deepEqual(files().sort(), made);
  const head = git('rev-parse', 'HEAD');
  t.not(head, before);
  t.deepEqual([pushed('main'), pushed('v99.0.0'), git('status', '--porcelain')], [head, head, '']);
  // Only these files contain the version.
  t.is(
    git('show', '--format=%s', '--name-only', 'HEAD'),
    'Release 99.0.0\n\nCHANGELOG.md\npackage-lock.json\npackage.json',
  );
  t.regex(
    readFileSync(path.join(directory, 'CHANGELOG.md'), 'utf8'),
    /^## Unreleased\n\n## 99\.0\.0 - \d{4}-\d\d-\d\d\n\n### Added\n/m,
  );
  t.regex(readFileSync(path.join(directory, 'release/NOTES.md'), 'utf8'), /^### Added\n/);
});
