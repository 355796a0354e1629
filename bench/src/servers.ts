// Starts the servers of the comparison, each in a separate process on one core, and detects their exit.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import type { BenchFile } from './files.ts';

export interface Server {
  variant: string;
  pid: number;
  url: string;
  /** Throws if the server has exited; the error contains the end of its standard error. */
  check(): void;
  stop(): Promise<void>;
}

const SERVE = fileURLToPath(new URL('../serve.ts', import.meta.url));
const START_TIMEOUT_MS = 20_000;

export function startServer(variant: string, root: string, core: number | string): Promise<Server> {
  const child = spawn(
    'taskset',
    ['-c', String(core), process.execPath, '--import', import.meta.resolve('tsx'), SERVE, variant, root],
    { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, NODE_ENV: 'production' } },
  );
  let stdout = '';
  let stderr = '';
  let exit: string | undefined;
  const closed = new Promise<void>((resolve) => {
    child.on('close', (code, signal) => {
      exit = signal === null ? `code ${code}` : `signal ${signal}`;
      resolve();
    });
  });
  const failure = (event: string) => new Error(`server "${variant}" ${event}\n${stderr.trim() || '(no output)'}`);

  return new Promise((resolve, reject) => {
    const timeout = setTimeout(() => {
      child.kill('SIGKILL');
      reject(failure(`did not listen within ${START_TIMEOUT_MS / 1000} s`));
    }, START_TIMEOUT_MS);
    child.on('error', (error) => {
      clearTimeout(timeout);
      reject(new Error(`server "${variant}" could not be started`, { cause: error }));
    });
    void closed.then(() => {
      clearTimeout(timeout);
      reject(failure(`exited with ${exit} before it listened`));
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-4000);
    });
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout = (stdout + text).slice(-4000);
      const port = /^listening (\d+)$/m.exec(stdout)?.[1];
      if (port === undefined || child.pid === undefined) return;
      clearTimeout(timeout);
      resolve({
        variant,
        pid: child.pid,
        url: `http://127.0.0.1:${port}`,
        check() {
          if (exit !== undefined) throw failure(`exited with ${exit} during the run`);
        },
        async stop() {
          child.stdin.end();
          const killTimer = setTimeout(() => child.kill('SIGKILL'), 3000);
          await closed;
          clearTimeout(killTimer);
        },
      });
    });
  });
}

/** Checks that a server delivers every file with the right bytes. */
export async function verifyServer({ variant, url }: Server, files: readonly BenchFile[]): Promise<void> {
  for (const { name, bytes, sha256 } of files) {
    const answer = await fetch(`${url}/static/${name}`, { headers: { 'accept-encoding': 'identity' } });
    if (answer.status !== 200)
      throw new Error(`server "${variant}": /static/${name} has status ${answer.status}, expected 200`);
    const hash = createHash('sha256');
    let received = 0;
    for await (const chunk of answer.body ?? []) {
      hash.update(chunk);
      received += chunk.length;
    }
    if (received !== bytes)
      throw new Error(`server "${variant}": /static/${name} has ${received} bytes, expected ${bytes}`);
    if (hash.digest('hex') !== sha256) throw new Error(`server "${variant}": /static/${name} differs from the file`);
  }
}

/** Checks the JSON route. */
export async function verifyJson({ variant, url }: Server): Promise<void> {
  const json = await fetch(`${url}/json`);
  const body = await json.text();
  if (body !== '{"hello":"world"}')
    throw new Error(`server "${variant}": /json answers ${json.status} ${body.slice(0, 100)}`);
}
