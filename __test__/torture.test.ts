/** The torture program for a short while; `npm run torture -- --minutes=60` goes on for longer. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

import test from 'ava';

import { PACKAGE_ROOT } from '../lib/util/package.js';

test('everything at once for a short while', async (t) => {
  t.timeout(300_000);
  const args = ['--import', 'tsx', 'torture/torture.ts', '--seconds=35'];
  const program = spawn(process.execPath, args, { cwd: PACKAGE_ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => program.kill());
  let output = '';
  program.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const [code] = await once(program, 'close');
  t.is(code, 0, output);
  t.regex(output, /\| torture \| rounds \| \d+ \|/);
});
