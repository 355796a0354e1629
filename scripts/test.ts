/** Runs all tests, those of Rust and those of the built package, and ends with one line that sums both. */
import { run } from './run.js';
import { installTools } from './tools.js';

const sum = (output: string, pattern: RegExp): number =>
  [...output.matchAll(pattern)].reduce((total, match) => total + Number(match[1]), 0);

installTools();
const rust = await run('cargo', ['test', '--workspace', '--quiet']);
const node = await run('ava', ['--tap']);

let passed = sum(rust.output, /^test result: .*?(\d+) passed/gm) + sum(node.output, /^# pass (\d+)$/gm);
let failed = sum(rust.output, /^test result: .*?(\d+) failed/gm) + sum(node.output, /^# fail (\d+)$/gm);
// What fails without a count (a crate that does not compile, a test file that throws) is a failure all the same.
if (failed === 0 && (rust.code !== 0 || node.code !== 0)) failed = 1;
if (passed === 0) failed ||= 1;
passed = Math.max(0, passed);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
