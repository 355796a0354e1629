/**
 * `npm run sanitize [-- thread|address|miri ...]`: tests of the crates under ThreadSanitizer, AddressSanitizer and Miri; all three by
 * default. Needs a nightly toolchain with the components `rust-src` and `miri`.
 */
import { spawnSync } from 'node:child_process';

import { ROOT } from './run.js';

const TARGET = `${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-unknown-linux-gnu`;

/** Tests of the core that start threads, share memory or map files. Sandboxed and injected system calls are excluded. */
const CORE_TESTS = [
  'cache_model',
  'fs_root',
  'regressions',
  'relay',
  'relay_sessions',
  'ring',
  'server',
  'transfer_table',
];

/** Sanitized code runs up to 15 times slower: random tests are shorter. */
const SHORTER = { PROPTEST_CASES: '16' };

function sanitized(kind: 'thread' | 'address'): boolean {
  const tests = CORE_TESTS.flatMap((name) => ['--test', name]);
  return cargo(
    // The standard library is compiled too, or its synchronization would be invisible to ThreadSanitizer.
    [
      '+nightly',
      'test',
      '--no-fail-fast',
      '-Zbuild-std',
      '--target',
      TARGET,
      '-p',
      'zerosend-core',
      '-p',
      'zerosend-sys',
      '--lib',
      ...tests,
    ],
    {
      ...SHORTER,
      RUSTFLAGS: `-Zsanitizer=${kind}`,
      CARGO_TARGET_DIR: `target/sanitize-${kind}`,
      // Symbols of a backtrace take longer than tests wait.
      RUST_BACKTRACE: '0',
      TSAN_OPTIONS: 'halt_on_error=1',
      // Threads and caches of the process live until it exits.
      ASAN_OPTIONS: 'detect_leaks=0',
    },
  );
}

const CHECKS = {
  thread: () => sanitized('thread'),
  address: () => sanitized('address'),
  // Miri has no system calls: only crates and modules without I/O.
  miri: () =>
    miri('-p', 'zerosend-http') &&
    // The copies of a ring, and its memory order with the emulation of weak memory.
    miri('-p', 'zerosend-sys', '--lib', 'atomic_copy') &&
    miri('-p', 'zerosend-core', '--lib', 'shm::layout'),
};

function miri(...args: string[]): boolean {
  return cargo(['+nightly', 'miri', 'test', ...args], {
    ...SHORTER,
    MIRIFLAGS: '-Zmiri-strict-provenance -Zmiri-disable-isolation',
  });
}

function cargo(args: string[], env: NodeJS.ProcessEnv): boolean {
  console.log(`> cargo ${args.join(' ')}`);
  return spawnSync('cargo', args, { cwd: ROOT, stdio: 'inherit', env: { ...process.env, ...env } }).status === 0;
}

const names = process.argv.slice(2);
for (const name of names) {
  if (!(name in CHECKS)) {
    console.error(`unknown check '${name}': use ${Object.keys(CHECKS).join(', ')}`);
    process.exit(2);
  }
}
if (spawnSync('cargo', ['+nightly', '--version']).status !== 0) {
  console.error(
    'a nightly toolchain is required: rustup toolchain install nightly --component rust-src --component miri',
  );
  process.exit(2);
}
const failed = (names.length > 0 ? names : Object.keys(CHECKS)).filter(
  (name) => !CHECKS[name as keyof typeof CHECKS](),
);
if (failed.length > 0) console.error(`failed: ${failed.join(', ')}`);
process.exit(failed.length === 0 ? 0 : 1);
