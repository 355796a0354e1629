/** Compiles the binary from the sources in the package. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { ownTarget } from '../runtime/binary.js';
import { PACKAGE_ROOT } from '../util/package.js';

/** The `rust-version` of Cargo.toml. */
const MIN_RUST = [1, 88] as const;

/**
 * Compiles a binary for this machine and returns its content. Takes a minute or two, and downloads the crates. The files of cargo are
 * kept if `CARGO_TARGET_DIR` is set.
 */
export async function build(): Promise<Buffer> {
  checkSources();
  checkCargo();
  const { CARGO_TARGET_DIR } = process.env;
  // Not in the package: it may be read-only, and the files take hundreds of megabytes.
  const directory = CARGO_TARGET_DIR || (await mkdtemp(path.join(tmpdir(), 'zerosend-build-')));
  try {
    await compile(directory);
    return await readFile(path.resolve(directory, 'release/libzerosend_node.so'));
  } finally {
    if (!CARGO_TARGET_DIR) await rm(directory, { recursive: true, force: true });
  }
}

function checkSources(): void {
  if (process.platform !== 'linux') throw new Error(`the native binary requires Linux, not ${process.platform}`);
  if (!existsSync(path.join(PACKAGE_ROOT, 'crates/node/Cargo.toml'))) {
    throw new Error(`'${PACKAGE_ROOT}' contains no sources; reinstall the package`);
  }
}

function checkCargo(): void {
  const required = MIN_RUST.join('.');
  let version: string;
  try {
    version = execFileSync('cargo', ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    throw new Error(
      `compiling requires cargo (Rust ${required} or newer) and a C linker; install Rust with rustup, and a C compiler`,
    );
  }
  const [, major = 0, minor = 0] = (/(\d+)\.(\d+)/.exec(version) ?? []).map(Number);
  if (major < MIN_RUST[0] || (major === MIN_RUST[0] && minor < MIN_RUST[1])) {
    throw new Error(
      `compiling requires Rust ${required} or newer, found ${version.trim()}; run "rustup update stable"`,
    );
  }
}

async function compile(directory: string): Promise<void> {
  const args = ['build', '--release', '--locked', '-p', 'zerosend-node', '--target-dir', path.resolve(directory)];
  const env = { ...process.env };
  // On musl, Rust links the C library statically by default, which does not allow a shared library.
  if (ownTarget().endsWith('-musl')) env.RUSTFLAGS = `${env.RUSTFLAGS ?? ''} -C target-feature=-crt-static`.trim();
  const code = await new Promise<number | null>((resolve, reject) => {
    spawn('cargo', args, { cwd: PACKAGE_ROOT, env, stdio: ['ignore', 'inherit', 'inherit'] })
      .on('error', reject)
      .on('close', resolve);
  });
  if (code !== 0) throw new Error('cargo failed; see its messages above');
}
