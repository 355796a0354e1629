/** Builds the binding (cargo) and the TypeScript (tsc). Run by `npm ci` in a clone and by `npm run build`. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';

process.chdir(new URL('..', import.meta.url).pathname);

if (!process.argv.includes('--typescript-only')) {
  if (process.platform !== 'linux') {
    console.log('zerosend: the native part is for Linux; building the TypeScript only.');
  } else {
    const cargo = spawnSync('cargo', ['--version'], { encoding: 'utf8' });
    if (cargo.status !== 0) {
      console.error('zerosend: building from source needs Rust 1.88 or newer; install it from https://rustup.rs and run "npm ci" again.');
      process.exit(1);
    }
    run('napi', [
      'build',
      '--platform',
      '--release',
      '--no-const-enum',
      '--manifest-path',
      'crates/node/Cargo.toml',
      '--output-dir',
      '.',
      '--js',
      'native.cjs',
      '--dts',
      'native.d.ts',
    ]);
  }
}
await rm('dist', { recursive: true, force: true });
run('tsc', ['-p', 'tsconfig.json']);

function run(tool: string, args: string[]): void {
  const local = `node_modules/.bin/${tool}`;
  const { status } = spawnSync(existsSync(local) ? local : tool, args, { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}
