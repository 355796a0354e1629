/** Tests that run only where certain programs are installed. */
import test from 'ava';

import { has, type Tool } from '../../scripts/tools.js';

/** `test`, or `test.skip` if one of these programs is missing, with a warning. */
export function testWith(...tools: Tool[]): typeof test.skip {
  const missing = tools.filter((tool) => !has(tool));
  if (missing.length === 0) return test;
  console.warn(`skipped: a test needs ${missing.join(', ')}`);
  return test.skip;
}

/** The same with `test.serial`. */
export function serialTestWith(...tools: Tool[]): typeof test.skip {
  return testWith(...tools) === test ? test.serial : test.serial.skip;
}
