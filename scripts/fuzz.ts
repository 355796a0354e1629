/**
 * `npm run fuzz [-- --runs=<n>] [--target=<name>]`: runs the fuzz targets of `fuzz/` with libFuzzer, one after another, starting from the
 * corpus of earlier runs. Needs a nightly toolchain and `cargo install cargo-fuzz`; without them it runs the same targets with mutations of
 * the corpus on the stable compiler, as the tests do.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { ROOT } from './run.js';

const TARGETS = readdirSync(`${ROOT}fuzz/fuzz_targets`).map((name) => name.replace(/\.rs$/, ''));

const { values } = parseArgs({ options: { runs: { type: 'string' }, target: { type: 'string' } } });
const runs = Number(values.runs ?? 1_000_000);
if (!Number.isInteger(runs) || runs < 1) {
  console.error(`invalid --runs '${values.runs}': use an integer of at least 1`);
  process.exit(2);
}
if (values.target !== undefined && !TARGETS.includes(values.target)) {
  console.error(`unknown --target '${values.target}': use ${TARGETS.join(', ')}`);
  process.exit(2);
}
const chosen = values.target === undefined ? TARGETS : [values.target];

const succeeds = (...args: string[]) => spawnSync('cargo', args, { stdio: 'ignore' }).status === 0;

function cargo(args: string[], env: NodeJS.ProcessEnv = {}): void {
  const { status } = spawnSync('cargo', args, { cwd: ROOT, stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) process.exit(1);
}

const missing = !succeeds('+nightly', '--version')
  ? 'rustup toolchain install nightly'
  : !succeeds('fuzz', '--version')
    ? 'cargo install cargo-fuzz'
    : undefined;
if (missing === undefined) {
  for (const target of chosen) {
    console.log(`> ${target}`);
    const limits = [`-runs=${runs}`, '-max_len=4096', '-timeout=10', '-print_final_stats=1', '-verbosity=0'];
    // libFuzzer adds new inputs to the first directory, which is not in the repository; it only reads the seeds.
    const corpora = [`fuzz/target/corpus/${target}`, `fuzz/corpus/${target}`];
    spawnSync('mkdir', ['-p', corpora[0] as string], { cwd: ROOT });
    cargo(['+nightly', 'fuzz', 'run', target, ...corpora, '--', ...limits]);
  }
} else {
  console.log(`libFuzzer is not available (run "${missing}"): running the targets with mutations of the corpus`);
  const seed = String(Math.floor(Math.random() * 2 ** 48));
  console.log(`ZEROSEND_FUZZ_SEED=${seed}`);
  const env = { ZEROSEND_FUZZ_RUNS: String(runs), ZEROSEND_FUZZ_SEED: seed };
  const filter = values.target === undefined ? [] : ['--exact', values.target];
  cargo(['test', '--release', '-p', 'zerosend-core', '--test', 'fuzz', '--', ...filter], env);
}
