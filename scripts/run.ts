/** Running tools for the other scripts. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The root of the repository; scripts work there wherever they are called from. */
export const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** Runs a tool (one of ours in `node_modules`, or one on the PATH), shows its output and returns that with its exit code. */
export function run(
  tool: string,
  args: string[],
  env: NodeJS.ProcessEnv = {},
  cwd = ROOT,
): Promise<{ code: number; output: string }> {
  const local = `${ROOT}node_modules/.bin/${tool}`;
  return new Promise((resolve, reject) => {
    const child = spawn(existsSync(local) ? local : tool, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      process.stdout.write(chunk);
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code: code ?? 1, output }));
  });
}
