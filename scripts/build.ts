/** Builds the binding (cargo) and the TypeScript (tsc). Run by `npm ci` in a clone, and by `npm run build`. */
import { spawnSync } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';

import { ROOT, run } from './run.js';

async function runOrExit(tool: string, args: string[]): Promise<void> {
  const { code } = await run(tool, args);
  if (code !== 0) process.exit(code);
}

if (process.platform !== 'linux') {
  console.log('zerosend: the native binary requires Linux; building the TypeScript only.');
} else if (!process.argv.includes('--typescript-only')) {
  if (spawnSync('cargo', ['--version']).status !== 0) {
    console.error(
      'zerosend: building from source needs Rust 1.88 or newer: install it with rustup, then run "npm ci" again.',
    );
    process.exit(1);
  }
  const paths = ['--manifest-path', 'crates/node/Cargo.toml', '--output-dir', '.', '--no-js', '--dts', 'native.d.ts'];
  await runOrExit('napi', ['build', '--platform', '--release', '--no-const-enum', ...paths]);
  // Doc comments that come from a macro are raw strings; napi copies their prefix: `/** r" Text. */`.
  const declarations = await readFile(`${ROOT}native.d.ts`, 'utf8');
  await writeFile(`${ROOT}native.d.ts`, declarations.replaceAll(/^(\s*\/?\*\*?) r" /gm, '$1 '));
}
await rm(`${ROOT}dist`, { recursive: true, force: true });
await runOrExit('tsc', ['-p', 'tsconfig.json']);
