/** `npm run bench [-- --smoke]`: runs the comparison in `bench/`; installs its packages there first. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

import { ROOT } from './run.js';

const cwd = `${ROOT}bench`;
const run = (command: string, args: string[]) => {
  const { status, error } = spawnSync(command, args, { cwd, stdio: 'inherit' });
  if (error !== undefined) throw error;
  if (status !== 0) process.exit(status ?? 1);
};
if (!existsSync(`${cwd}/node_modules`)) run('npm', ['ci', '--ignore-scripts']);
run('npm', ['run', '--silent', 'bench', '--', ...process.argv.slice(2)]);
