/** A ring between processes that are killed and stopped. */
import { setTimeout as sleep } from 'node:timers/promises';

import { Child } from '../child.js';
import type { Random } from '../random.js';
import type { Report } from '../report.js';
import type { Area } from '../run.js';

interface Seen {
  writer: number;
  next: number;
  messages: number;
  deaths: number;
  faults: string[];
}

export class RingArea implements Area {
  readonly #report: Report;
  readonly #random: Random;
  readonly #name: string;
  #owner: Child | undefined;
  #writer: Child | undefined;
  #reader: Child | undefined;
  #writers = 0;

  constructor(report: Report, random: Random) {
    this.#report = report;
    this.#random = random;
    this.#name = `torture-${process.pid}-${random.int(0, 1e9)}`;
  }

  async start(): Promise<void> {
    // Only keeps the name.
    this.#owner = Child.start(this.#report, 'ring', 'ring');
    await this.#owner.call('create', this.#name);
    await this.#startWriter();
    await this.#startReader();
  }

  async #startWriter(): Promise<void> {
    const child = Child.start(this.#report, 'ring writer', 'ring');
    this.#writer = child;
    await child.call('write', { name: this.#name, writer: ++this.#writers, seed: this.#random.int(0, 1e9) });
  }

  async #startReader(): Promise<void> {
    const child = Child.start(this.#report, 'ring reader', 'ring');
    this.#reader = child;
    await child.call('read', this.#name);
  }

  async round(signal: AbortSignal): Promise<void> {
    const random = this.#random.fork();
    while (!signal.aborted) {
      await sleep(random.int(200, 1500));
      await this.#look();
      const what = random.pick([
        'kill writer',
        'kill reader',
        'stop writer',
        'stop reader',
        'nothing',
        'nothing',
      ] as const);
      this.#report.count('ring', what);
      switch (what) {
        case 'kill writer':
          await this.#writer?.kill();
          await this.#startWriter();
          break;
        case 'kill reader':
          await this.#reader?.kill();
          await this.#startReader();
          break;
        case 'stop writer':
          await this.#stop(this.#writer, random);
          break;
        case 'stop reader':
          await this.#stop(this.#reader, random);
          break;
        default:
      }
    }
  }

  async #stop(child: Child | undefined, random: Random): Promise<void> {
    child?.process.kill('SIGSTOP');
    await sleep(random.int(50, 1500));
    child?.process.kill('SIGCONT');
  }

  async #look(): Promise<void> {
    const seen = await this.#reader?.call<Seen>('seen').catch(() => undefined);
    if (seen === undefined) return;
    for (const fault of seen.faults) this.#report.fault('ring', 'messages', fault);
  }

  /** Messages must arrive while both sides are alive. */
  async check(): Promise<void> {
    const reader = this.#reader;
    const before = await reader?.call<Seen>('seen');
    const end = performance.now() + 20_000;
    let now = before;
    while (now?.messages === before?.messages && performance.now() < end) {
      await sleep(50);
      now = await reader?.call<Seen>('seen');
    }
    if (now?.messages === before?.messages) this.#report.fault('ring', 'no messages arrive', JSON.stringify(now));
    this.#report.count('ring', 'messages checked', now?.messages ?? 0);
    await this.#look();
  }

  async end(): Promise<void> {
    await this.#writer?.end();
    await this.#reader?.end();
    await this.#owner?.call('unlink', this.#name);
    await this.#owner?.end();
  }
}
