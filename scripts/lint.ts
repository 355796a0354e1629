/** Static checks: formatting, clippy, types, links, workflows, and that generated files are up to date. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

import { ROOT, run } from './run.js';

const GENERATED = ['native.d.ts', 'crates/http/src/mime_table.rs', 'docs/api.md'];

const failures: string[] = [];

async function check(name: string, tool: string, args: string[], env: NodeJS.ProcessEnv = {}): Promise<void> {
  console.log(`> ${name}`);
  const { code } = await run(tool, args, env);
  if (code !== 0) failures.push(name);
}

await check('cargo fmt', 'cargo', ['fmt', '--all', '--check']);
await check('clippy', 'cargo', [
  'clippy',
  '--workspace',
  '--exclude',
  'zerosend-node',
  '--all-targets',
  '--features',
  'zerosend-core/failpoints',
  '--quiet',
  '--',
  '-D',
  'warnings',
]);
// Without its test target: napi-derive exports nothing there, so everything would be reported as unused.
await check('clippy of the binding', 'cargo', ['clippy', '-p', 'zerosend-node', '--quiet', '--', '-D', 'warnings']);
await check('biome', 'biome', ['check', '--error-on-warnings', '.']);
await check('types', 'tsc', ['-p', 'tsconfig.check.json']);

await check('rustdoc', 'cargo', ['doc', '--workspace', '--no-deps', '--document-private-items', '--quiet'], {
  RUSTDOCFLAGS: '-D warnings -A rustdoc::private_intra_doc_links',
});
await check('imports', 'tsx', ['scripts/lint/graph.ts']);
await check('unused exports', 'knip', ['--no-progress']);
await check('wording', 'tsx', ['scripts/lint/words.ts']);
await check('links', 'tsx', ['scripts/check-links.ts']);

if (spawnSync('go', ['version']).status === 0) {
  await check('workflows', 'go', ['run', 'github.com/rhysd/actionlint/cmd/actionlint@v1.7.12']);
} else {
  console.warn('workflows not checked: actionlint needs go');
}

const contents = () => GENERATED.map((file) => readFileSync(ROOT + file, 'utf8'));
const before = contents();
await check('generate', 'tsx', ['scripts/generate-mime.ts']);
await check('build', 'tsx', ['scripts/build.ts']);
await check('api', 'tsx', ['scripts/generate-api.ts']);
contents().forEach((text, at) => {
  if (text !== before[at]) failures.push(`${GENERATED[at]} was out of date; commit the updated file`);
});

// In CI `npm ci` has regenerated these files before, so they are compared with the commit.
if (process.env.CI) await check('committed', 'git', ['diff', '--exit-code', '--stat', '--', ...GENERATED]);

const dependents = await run('cargo', ['tree', '-p', 'zerosend-core', '--edges', 'normal', '--prefix', 'none']);
if (dependents.output.includes('napi')) failures.push('zerosend-core must not depend on napi');

for (const failure of failures) console.error(`lint: ${failure}`);
process.exit(failures.length === 0 ? 0 : 1);
