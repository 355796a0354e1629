/** A process of the program under test, controlled over IPC. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import type { Report } from './report.js';

const CHILDREN = fileURLToPath(new URL('./children/', import.meta.url));

interface Answer {
  id: number;
  result?: unknown;
  error?: string;
}

/** Expected lines on standard error. */
const HARMLESS = /ExperimentalWarning|--trace-warnings|^\s*$/;

export class Child {
  readonly name: string;
  readonly process: ChildProcess;
  readonly #report: Report;
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  #last = 0;
  /** The process may exit from now on. */
  #ending = false;

  private constructor(name: string, process: ChildProcess, report: Report) {
    this.name = name;
    this.process = process;
    this.#report = report;
    process.on('message', (answer: Answer) => {
      const waiting = this.#waiting.get(answer.id);
      this.#waiting.delete(answer.id);
      if (answer.error === undefined) waiting?.resolve(answer.result);
      else waiting?.reject(new Error(answer.error));
    });
    process.on('exit', (code, signal) => {
      if (!this.#ending) report.fault(name, 'the process exited', `code ${code}, signal ${signal}`);
      for (const { reject } of this.#waiting.values()) reject(new Error(`${name} has ended`));
      this.#waiting.clear();
    });
    process.on('error', () => {});
    createInterface({ input: process.stderr! }).on('line', (line) => {
      if (!this.#ending && !HARMLESS.test(line)) report.fault(name, 'output on standard error', line);
    });
    process.stdout?.resume();
  }

  /** Starts a program of `children/`. `files`: maximum number of descriptors. */
  static start(report: Report, name: string, program: string, files?: number): Child {
    const script = `${CHILDREN}${program}.ts`;
    const options = {
      execArgv: ['--import', import.meta.resolve('tsx'), '--expose-gc'],
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'] as ('ignore' | 'pipe' | 'ipc')[],
    };
    const process_ =
      files === undefined
        ? fork(script, options)
        : fork(script, [], {
            ...options,
            execPath: 'prlimit',
            execArgv: [`--nofile=${files}:${files}`, process.execPath, ...options.execArgv],
          });
    return new Child(name, process_, report);
  }

  get pid(): number {
    return this.process.pid ?? 0;
  }

  get running(): boolean {
    return this.process.exitCode === null && this.process.signalCode === null;
  }

  /** Rejects with the error of the child, or when it exits. Reports a fault after `ms`. */
  async call<T = unknown>(command: string, argument?: unknown, ms = 60_000): Promise<T> {
    const id = ++this.#last;
    return await new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        this.#report.fault(this.name, 'hangs', `no response to '${command}' within ${ms} ms`);
        reject(new Error(`${this.name}: '${command}' was not answered`));
      }, ms);
      this.#waiting.set(id, {
        resolve: (value) => {
          clearTimeout(timer);
          resolve(value as T);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      if (!this.running) this.#waiting.get(id)?.reject(new Error(`${this.name} has ended`));
      else this.process.send({ id, command, argument });
    });
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.#ending = true;
    if (!this.running) return;
    const closed = once(this.process, 'exit');
    this.process.kill(signal);
    this.process.kill('SIGCONT');
    await closed;
  }

  /** Closes it and waits for its exit. Reports a fault when it does not exit. */
  async end(ms = 30_000): Promise<void> {
    if (!this.running) return;
    this.#ending = true;
    const closed = once(this.process, 'exit');
    try {
      await this.call('end', undefined, ms);
    } catch {
      // A hang is reported above; an exit before the response is expected.
    }
    const timer = setTimeout(() => {
      this.#report.fault(this.name, 'does not exit', `still running ${ms} ms after everything was closed`);
      this.process.kill('SIGKILL');
    }, ms);
    await closed;
    clearTimeout(timer);
  }
}
