// Starts the servers of the comparison, each in a process of its own on one core, and knows when one has died.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import type { BenchFile } from './files.ts';

export interface Server {
  variant: string;
  pid: number;
  url: string;
  /** Throws with the last words of the server when it has ended. */
  check(): void;
  stop(): Promise<void>;
}

const SERVE = fileURLToPath(new URL('../serve.ts', import.meta.url));
const START_LIMIT_MS = 20_000;

export function startServer(variant: string, root: string, core: number | string): Promise<Server> {
  const child = spawn(
    'taskset',
    ['-c', String(core), process.execPath, '--import', import.meta.resolve('tsx'), SERVE, variant, root],
    { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, NODE_ENV: 'production' } },
  );
  let stdout = '';
  let stderr = '';
  let ended: string | undefined;
  const closed = new Promise<void>((resolve) => {
    child.on('close', (code, signal) => {
      ended = signal === null ? `code ${code}` : `signal ${signal}`;
      resolve();
    });
  });
  const failure = (what: string) => new Error(`server "${variant}" ${what}\n${stderr.trim() || '(it said nothing)'}`);

  return new Promise((resolve, reject) => {
    const limit = setTimeout(() => {
      child.kill('SIGKILL');
      reject(failure(`did not listen within ${START_LIMIT_MS / 1000} s`));
    }, START_LIMIT_MS);
    child.on('error', (error) => {
      clearTimeout(limit);
      reject(new Error(`server "${variant}" could not be started`, { cause: error }));
    });
    void closed.then(() => {
      clearTimeout(limit);
      reject(failure(`ended with ${ended} before it listened`));
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-4000);
    });
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout = (stdout + text).slice(-4000);
      const port = /^listening (\d+)$/m.exec(stdout)?.[1];
      if (port === undefined || child.pid === undefined) return;
      clearTimeout(limit);
      resolve({
        variant,
        pid: child.pid,
        url: `http://127.0.0.1:${port}`,
        check() {
          if (ended !== undefined) throw failure(`ended with ${ended} during the run`);
        },
        async stop() {
          child.stdin.end();
          const patience = setTimeout(() => child.kill('SIGKILL'), 3000);
          await closed;
          clearTimeout(patience);
        },
      });
    });
  });
}

/** A fast wrong answer must not win: every server has to deliver every file, byte for byte, before it is measured. */
export async function verifyServer({ variant, url }: Server, files: readonly BenchFile[]): Promise<void> {
  for (const { name, bytes, sha256 } of files) {
    const answer = await fetch(`${url}/static/${name}`, { headers: { 'accept-encoding': 'identity' } });
    if (answer.status !== 200)
      throw new Error(`server "${variant}": /static/${name} has status ${answer.status}, not 200`);
    const hash = createHash('sha256');
    let received = 0;
    for await (const chunk of answer.body ?? []) {
      hash.update(chunk);
      received += chunk.length;
    }
    if (received !== bytes) throw new Error(`server "${variant}": /static/${name} has ${received} bytes, not ${bytes}`);
    if (hash.digest('hex') !== sha256)
      throw new Error(`server "${variant}": /static/${name} has other bytes than the file`);
  }
}

/** The same of the route that JSON is measured with. */
export async function verifyJson({ variant, url }: Server): Promise<void> {
  const json = await fetch(`${url}/json`);
  const body = await json.text();
  if (body !== '{"hello":"world"}')
    throw new Error(`server "${variant}": /json answers ${json.status} ${body.slice(0, 100)}`);
}
