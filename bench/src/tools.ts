// The programs that the comparison needs besides Node.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

/** Installs what is missing where that is a matter of one command, says what to do where it is not. */
export function ensureTools(
  others: readonly ('nginx' | 'caddy' | 'haproxy' | 'socat' | 'libnginx-mod-stream')[] = [],
): void {
  if (!works('taskset', ['--version']))
    throw new Error('taskset is missing: install util-linux. The comparison runs on Linux only.');
  for (const tool of ['wrk', ...others]) {
    if (isThere(tool)) continue;
    if (process.getuid?.() === 0 && works('apt-get', ['--version'])) {
      console.error(`${tool} is missing: installing it with apt-get`);
      spawnSync('apt-get', ['update', '-qq'], { stdio: ['ignore', 'ignore', 'inherit'] });
      spawnSync('apt-get', ['install', '-y', '-qq', tool], { stdio: ['ignore', 'ignore', 'inherit'] });
      if (isThere(tool)) continue;
    }
    throw new Error(`${tool} is missing: install it (Debian and Ubuntu: apt-get install ${tool}) and start again.`);
  }
}

function isThere(tool: string): boolean {
  // A module of nginx is no program.
  return tool.startsWith('lib') ? existsSync('/usr/lib/nginx/modules/ngx_stream_module.so') : works(tool, ['-v']);
}

/** wrk exits 1 after printing its version, so only a failure to start counts. */
function works(command: string, args: string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore' }).error === undefined;
}
