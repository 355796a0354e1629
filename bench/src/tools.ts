// The programs that the comparison needs besides Node.

import { spawnSync } from 'node:child_process';

/** Installs wrk where that is a matter of one command, says what to do where it is not. */
export function ensureTools(): void {
  if (!works('taskset', ['--version']))
    throw new Error('taskset is missing: install util-linux. The comparison runs on Linux only.');
  if (works('wrk', ['--version'])) return;
  if (process.getuid?.() === 0 && works('apt-get', ['--version'])) {
    console.error('wrk is missing: installing it with apt-get');
    spawnSync('apt-get', ['update', '-qq'], { stdio: ['ignore', 'ignore', 'inherit'] });
    spawnSync('apt-get', ['install', '-y', '-qq', 'wrk'], { stdio: ['ignore', 'ignore', 'inherit'] });
    if (works('wrk', ['--version'])) return;
  }
  throw new Error('wrk is missing: install it (Debian and Ubuntu: apt-get install wrk) and start again.');
}

/** wrk exits 1 after printing its version, so only a failure to start counts. */
function works(command: string, args: string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore' }).error === undefined;
}
