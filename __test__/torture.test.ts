/** A short run of the torture program; `npm run torture -- --minutes=60` runs it for an hour. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

import test from 'ava';

import { PACKAGE_ROOT } from '../lib/util/package.js';

test('the torture program finds no faults in 35 seconds', async (t) => {
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
