/**
 * Compiles the binaries of a release into `release/`, for any target on any Linux machine: zig links against glibc 2.17 or musl.
 *
 *   pip install --require-hashes -r scripts/release/requirements.txt   # cargo-zigbuild and zig
 *   rustup target add aarch64-unknown-linux-gnu                        # ... for each target
 *   npx tsx scripts/release/binary.ts linux-arm64-gnu [more targets] [--build-std]
 *
 * `--build-std` is for toolchains with only the sources of the standard library for the target (Debian: rustc-web and rust-web-src).
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { binaryName, TARGETS } from '../../lib/runtime/binary.js';
import { ROOT, run } from '../run.js';
import { GLIBC_FLOOR } from './inspect.js';

type Target = (typeof TARGETS)[number];

const TRIPLES: Record<Target, string> = {
  'linux-x64-gnu': 'x86_64-unknown-linux-gnu',
  'linux-arm64-gnu': 'aarch64-unknown-linux-gnu',
  'linux-x64-musl': 'x86_64-unknown-linux-musl',
  'linux-arm64-musl': 'aarch64-unknown-linux-musl',
};

/** Whether this machine can compile and link a release binary for a target. */
export function canRelease(target: Target): boolean {
  try {
    execFileSync('cargo-zigbuild', ['--version'], { stdio: 'ignore' });
    const args = ['--print', 'target-libdir', '--target', TRIPLES[target]];
    return existsSync(execFileSync('rustc', args, { encoding: 'utf8' }).trim());
  } catch {
    return false;
  }
}

/** Compiles the binary of a target into `directory`, from the sources in `cwd`. */
export async function compile(target: Target, directory: string, cwd = ROOT, buildStd = false): Promise<void> {
  const triple = TRIPLES[target];
  const musl = target.endsWith('-musl');
  const targetDirectory = path.join(ROOT, 'target');
  const args = ['zigbuild', '--release', '--locked', '-p', 'zerosend-node', '--target-dir', targetDirectory];
  args.push('--target', musl ? triple : `${triple}.${GLIBC_FLOOR}`);
  if (buildStd) args.push('-Z', 'build-std=std,panic_unwind');
  const env: NodeJS.ProcessEnv = buildStd ? { RUSTC_BOOTSTRAP: '1' } : {};
  // musl targets link the C library statically by default, which does not work for shared libraries.
  if (musl) env.RUSTFLAGS = '-C target-feature=-crt-static';
  const { code } = await run('cargo-zigbuild', args, env, cwd);
  if (code !== 0) throw new Error(`compiling for ${target} failed`);
  mkdirSync(directory, { recursive: true });
  copyFileSync(
    path.join(targetDirectory, triple, 'release/libzerosend_node.so'),
    path.join(directory, binaryName(target)),
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const args = process.argv.slice(2);
  const targets = args.filter((arg) => !arg.startsWith('--'));
  const unknown = targets.find((target) => !(TARGETS as readonly string[]).includes(target));
  if (targets.length === 0 || unknown !== undefined) {
    console.error(
      `${unknown === undefined ? 'missing target' : `unknown target '${unknown}'`}: use ${TARGETS.join(', ')}`,
    );
    process.exit(2);
  }
  for (const target of targets)
    await compile(target as Target, path.join(ROOT, 'release'), ROOT, args.includes('--build-std'));
}
