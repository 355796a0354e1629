// The programs that the comparison requires besides Node.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

/** Installs missing programs with apt-get as root; otherwise throws an error with the remedy. */
export function ensureTools(
  others: readonly ('nginx' | 'caddy' | 'haproxy' | 'socat' | 'libnginx-mod-stream')[] = [],
): void {
  if (!works('taskset', ['--version']))
    throw new Error('taskset is missing: install util-linux. The comparison runs on Linux only.');
  for (const tool of ['wrk', ...others]) {
    if (isInstalled(tool)) continue;
    if (process.getuid?.() === 0 && works('apt-get', ['--version'])) {
      console.error(`${tool} is missing: installing it with apt-get`);
      spawnSync('apt-get', ['update', '-qq'], { stdio: ['ignore', 'ignore', 'inherit'] });
      spawnSync('apt-get', ['install', '-y', '-qq', tool], { stdio: ['ignore', 'ignore', 'inherit'] });
      if (isInstalled(tool)) continue;
    }
    throw new Error(`${tool} is missing: install it (Debian and Ubuntu: apt-get install ${tool})`);
  }
}

function isInstalled(tool: string): boolean {
  // nginx modules are files, not programs.
  return tool.startsWith('lib') ? existsSync('/usr/lib/nginx/modules/ngx_stream_module.so') : works(tool, ['-v']);
}

/** Whether the command can be started. The exit code is ignored, because `wrk -v` exits with 1. */
function works(command: string, args: string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore' }).error === undefined;
}
