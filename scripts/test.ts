/** Runs the tests of the Rust crates and of the built package. The last line of the output has the totals. */
import { run } from './run.js';
import { installTools } from './tools.js';

const sum = (output: string, pattern: RegExp): number =>
  [...output.matchAll(pattern)].reduce((total, match) => total + Number(match[1]), 0);

/** Tests that load the machine for minutes. They run last, because other tests measure time. */
const HEAVY = ['install', 'package', 'release', 'torture'].map((name) => `__test__/${name}.test.ts`);

installTools();
const rust = [
  await run('cargo', ['test', '--workspace', '--quiet']),
  // Injected faults affect the whole process, so these tests run one at a time.
  await run('cargo', [
    ...['test', '--package', 'zerosend-core', '--features', 'failpoints', '--test', 'faults', '--quiet'],
    ...['--', '--test-threads', '1'],
  ]),
];
const ava = [
  await run('ava', ['--tap', '__test__/**/*.test.ts', ...HEAVY.map((file) => `!${file}`)]),
  await run('ava', ['--tap', ...HEAVY]),
];
const printed = (runs: { output: string }[]): string => runs.map(({ output }) => output).join('\n');
const [cargo, node] = [printed(rust), printed(ava)];

let passed = sum(cargo, /^test result: .*?(\d+) passed/gm) + sum(node, /^# pass (\d+)$/gm);
let failed = sum(cargo, /^test result: .*?(\d+) failed/gm) + sum(node, /^# fail (\d+)$/gm);
// A failure without a count, for example a crate that does not compile, counts as one failed test.
if (failed === 0 && [...rust, ...ava].some(({ code }) => code !== 0)) failed = 1;
if (passed === 0) failed ||= 1;
passed = Math.max(0, passed);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
