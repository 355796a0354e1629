/**
 * Prepares a release: sets the version and the CHANGELOG heading, commits and tags, compiles the binaries for all targets that this machine
 * supports, and writes the package and the other release files to `release/`, all inspected and tested. Then it pushes, and the workflow
 * `release` builds all targets and publishes. `--dry-run` does not push.
 *
 *   npx tsx scripts/release.ts 0.2.0 [--dry-run]
 *
 * It works in a clone, so the repository changes only after every step has succeeded; `--dry-run` only writes `release/`.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import semver from 'semver';

import { binaryName, TARGETS } from '../lib/runtime/binary.js';
import { VERSION } from '../lib/util/package.js';
import { canRelease, compile } from './release/binary.js';
import { notes, released } from './release/changelog.js';
import { describe, inspect } from './release/inspect.js';
import { ROOT } from './run.js';

function fail(message: string): never {
  console.error(`release: ${message}`);
  process.exit(1);
}

function git(cwd: string, ...args: string[]): string {
  return execFileSync('git', args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();
}

/** Exits with a message unless a release of `version` is possible. */
function check(version: string): void {
  if (semver.valid(version) !== version) fail(`invalid version '${version}': see semver.org`);
  if (semver.lt(version, VERSION)) fail(`${version} is older than ${VERSION} in package.json`);
  if (git(ROOT, 'branch', '--show-current') !== 'main') fail('releases are made from main; run "git switch main"');
  if (git(ROOT, 'status', '--porcelain') !== '') fail('uncommitted changes; commit or stash them');
  if (git(ROOT, 'tag', '--list', `v${version}`) !== '') fail(`tag v${version} already exists`);
  try {
    notes(readFileSync(`${ROOT}CHANGELOG.md`, 'utf8'), 'Unreleased');
  } catch (error) {
    fail((error as Error).message);
  }
}

/** Sets version and CHANGELOG heading, commits and tags in the clone at `cwd`. */
function mark(cwd: string, version: string): void {
  execFileSync('npm', ['version', version, '--no-git-tag-version', '--allow-same-version', '--ignore-scripts'], {
    cwd,
    stdio: 'ignore',
  });
  const changelog = path.join(cwd, 'CHANGELOG.md');
  const today = new Date().toISOString().slice(0, 10);
  writeFileSync(changelog, released(readFileSync(changelog, 'utf8'), version, today));
  git(cwd, 'commit', '--all', '--message', `Release ${version}`);
  git(cwd, 'tag', '--annotate', `v${version}`, '--message', `zerosend ${version}`);
}

/** Compiles the binaries for all targets that this machine supports. The TypeScript of the clone must be compiled. */
async function compileAll(clone: string, directory: string): Promise<void> {
  const possible = TARGETS.filter(canRelease);
  for (const target of possible) await compile(target, directory, clone);
  if (possible.length > 0) return;
  console.log('cargo-zigbuild not found: compiling for this machine and its glibc only; see scripts/release/binary.ts');
  const args = ['dist/lib/cli/main.js', 'install', '--build', '--to', directory];
  execFileSync('node', args, { cwd: clone, stdio: 'inherit' });
}

const { values, positionals } = parseArgs({ allowPositionals: true, options: { 'dry-run': { type: 'boolean' } } });
const [version = ''] = positionals;
if (positionals.length !== 1) fail('usage: npx tsx scripts/release.ts <version> [--dry-run]');
check(version);

const base = mkdtempSync(path.join(tmpdir(), 'zerosend-release-'));
const clone = path.join(base, 'clone');
try {
  git(ROOT, 'clone', '--quiet', ROOT, clone);
  for (const name of ['user.name', 'user.email']) git(clone, 'config', name, git(ROOT, 'config', name));
  symlinkSync(`${ROOT}node_modules`, path.join(clone, 'node_modules'));
  mark(clone, version);
  const directory = path.join(clone, 'release');
  const inClone = (tool: string, ...args: string[]) => execFileSync(tool, args, { cwd: clone, stdio: 'inherit' });
  inClone('node_modules/.bin/tsc', '-p', 'tsconfig.json');
  await compileAll(clone, directory);
  // With the scripts of the clone, which have the new version.
  inClone('node_modules/.bin/tsx', 'scripts/release/assemble.ts', 'release');
  writeFileSync(
    path.join(directory, 'NOTES.md'),
    notes(readFileSync(path.join(clone, 'CHANGELOG.md'), 'utf8'), version),
  );
  const tarball = path.join(directory, `zerosend-${version}.tgz`);
  inClone('node', 'scripts/release/smoke.mjs', tarball);
  inClone('npm', 'publish', '--dry-run', '--ignore-scripts', '--loglevel=error', tarball);
  rmSync(`${ROOT}release`, { recursive: true, force: true });
  cpSync(directory, `${ROOT}release`, { recursive: true });

  const present = TARGETS.filter((target) => existsSync(path.join(directory, binaryName(target))));
  for (const target of present) console.log(describe(inspect(path.join(directory, binaryName(target)))));
  const missing = TARGETS.filter((target) => !present.includes(target));
  if (missing.length > 0) console.log(`left to the workflow: ${missing.join(', ')}`);
  console.log(
    `files written to release/; commit ${git(clone, 'rev-parse', '--short', 'HEAD')} "${git(clone, 'log', '-1', '--format=%s')}", tag v${version}`,
  );
  if (values['dry-run']) {
    console.log('dry run: nothing was pushed');
  } else {
    git(ROOT, 'fetch', '--quiet', clone, 'main', `refs/tags/v${version}:refs/tags/v${version}`);
    git(ROOT, 'merge', '--quiet', '--ff-only', 'FETCH_HEAD');
    git(ROOT, 'push', '--atomic', 'origin', 'main', `v${version}`);
    console.log(`pushed; the workflow "release" publishes v${version}`);
  }
} finally {
  rmSync(base, { recursive: true, force: true });
}
