/** Compiles the binary from the sources that the package brings with it. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { ownTarget } from '../runtime/binary.js';
import { PACKAGE_ROOT } from '../util/package.js';

/** What the crates need, as in Cargo.toml. */
const LEAST_RUST = [1, 88] as const;

/**
 * The bytes of a binary for this machine. Takes a minute or two, and the crates from the network. What cargo makes on the way stays where
 * `CARGO_TARGET_DIR` says, or nowhere.
 */
export async function build(): Promise<Buffer> {
  checkSources();
  checkCargo();
  const { CARGO_TARGET_DIR } = process.env;
  // Not in the package: that may be read-only, and is nobody's place for hundreds of megabytes.
  const directory = CARGO_TARGET_DIR || (await mkdtemp(path.join(tmpdir(), 'zerosend-build-')));
  try {
    await compile(directory);
    return await readFile(path.resolve(directory, 'release/libzerosend_node.so'));
  } finally {
    if (!CARGO_TARGET_DIR) await rm(directory, { recursive: true, force: true });
  }
}

function checkSources(): void {
  if (process.platform !== 'linux') throw new Error(`the native part is for Linux, and this is ${process.platform}`);
  if (!existsSync(path.join(PACKAGE_ROOT, 'crates/node/Cargo.toml'))) {
    throw new Error(`the sources are not in '${PACKAGE_ROOT}'; install the package anew`);
  }
}

function checkCargo(): void {
  const least = LEAST_RUST.join('.');
  let version: string;
  try {
    version = execFileSync('cargo', ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    throw new Error(
      `compiling needs cargo, of Rust ${least} or newer, and a C linker; install them with rustup and your system's cc`,
    );
  }
  const [, major = 0, minor = 0] = (/(\d+)\.(\d+)/.exec(version) ?? []).map(Number);
  if (major < LEAST_RUST[0] || (major === LEAST_RUST[0] && minor < LEAST_RUST[1])) {
    throw new Error(
      `compiling needs Rust ${least} or newer, and this is ${version.trim()}; run "rustup update stable"`,
    );
  }
}

async function compile(directory: string): Promise<void> {
  const args = ['build', '--release', '--locked', '-p', 'zerosend-node', '--target-dir', path.resolve(directory)];
  const env = { ...process.env };
  // On musl the default is a static C library, which leaves no way to make a shared one.
  if (ownTarget().endsWith('-musl')) env.RUSTFLAGS = `${env.RUSTFLAGS ?? ''} -C target-feature=-crt-static`.trim();
  const code = await new Promise<number | null>((resolve, reject) => {
    spawn('cargo', args, { cwd: PACKAGE_ROOT, env, stdio: ['ignore', 'inherit', 'inherit'] })
      .on('error', reject)
      .on('close', resolve);
  });
  if (code !== 0) throw new Error('cargo could not compile it; its messages are above');
}
