/** The claims of docs/zero-copy.md about the kernel. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import test from 'ava';

const run = promisify(execFile);

test('every claim of docs/zero-copy.md holds on this kernel', async (t) => {
  const script = new URL('../scripts/claims.ts', import.meta.url).pathname;
  const { stdout } = await run(process.execPath, ['--import', 'tsx', script]);
  const lines = stdout.trim().split('\n');
  t.is(lines.length, 10);
  for (const line of lines) t.regex(line, /^holds/);
});
