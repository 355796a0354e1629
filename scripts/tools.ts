/** Programs that the tests use: servers, clients, and strace. */
import { spawnSync } from 'node:child_process';

/** Programs and their Debian packages. */
const PACKAGES = {
  strace: 'strace',
  fincore: 'util-linux',
  prlimit: 'util-linux',
  haproxy: 'haproxy',
  curl: 'curl',
  wget: 'wget',
  aria2c: 'aria2',
  wrk: 'wrk',
  'redis-server': 'redis-server',
  'redis-benchmark': 'redis-tools',
  pgbench: 'postgresql',
  // actionlint checks shell scripts in workflows with it.
  shellcheck: 'shellcheck',
} as const;

export type Tool = keyof typeof PACKAGES;

export function has(tool: Tool): boolean {
  return spawnSync('sh', ['-c', `command -v ${tool}`]).status === 0;
}

/** Installs missing programs on Debian as root. Elsewhere the tests that need them are skipped with a message. */
export function installTools(): void {
  const missing = (Object.keys(PACKAGES) as Tool[]).filter((tool) => !has(tool));
  if (missing.length === 0 || process.getuid?.() !== 0 || spawnSync('apt-get', ['--version']).status !== 0) return;
  const packages = missing.map((tool) => PACKAGES[tool]);
  console.log(`installing for the tests: ${packages.join(' ')}`);
  // RUNLEVEL=1 prevents packages from starting their servers.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  for (const args of [
    ['update', '-qq'],
    ['install', '-y', '-qq', '--no-install-recommends', ...packages],
  ]) {
    const { status } = spawnSync('apt-get', args, { env, stdio: ['ignore', 'ignore', 'inherit'], timeout: 300_000 });
    if (status !== 0) {
      console.warn(`apt-get ${args[0]} failed: tests that need these programs are skipped`);
      return;
    }
  }
}
