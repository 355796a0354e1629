/** Tests that need a program which not every machine has. */
import test from 'ava';

import { has, type Tool } from '../../scripts/tools.js';

/** `test`, or `test.skip` where one of these is missing, which is said. */
export function needing(...tools: Tool[]): typeof test.skip {
  const missing = tools.filter((tool) => !has(tool));
  if (missing.length === 0) return test;
  console.warn(`skipped: a test needs ${missing.join(', ')}`);
  return test.skip;
}

/** The same for tests that run one after another. */
export function needingSerial(...tools: Tool[]): typeof test.skip {
  return needing(...tools) === test ? test.serial : test.serial.skip;
}
