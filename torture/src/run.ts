/** The rounds: start everything, run it, wait until it is idle, check the resources. */
import { setTimeout as sleep } from 'node:timers/promises';

import { HttpArea } from './areas/http.js';
import { LifecycleArea } from './areas/lifecycle.js';
import { ProxyArea } from './areas/proxy.js';
import { RingArea } from './areas/ring.js';
import { SocketsArea } from './areas/sockets.js';
import type { Random } from './random.js';
import type { Report } from './report.js';
import { World } from './world.js';

export const AREAS = ['http', 'proxy', 'sockets', 'ring', 'lifecycle'] as const;
export type AreaName = (typeof AREAS)[number];

/** A part of zerosend with its processes. */
export interface Area {
  start(): Promise<void>;
  /** Runs one round until the signal is aborted; resolves when everything is idle. */
  round(signal: AbortSignal): Promise<void>;
  /** Compares the resources with those after the first round. */
  check(): Promise<void>;
  end(): Promise<void>;
}

const MAKERS: Record<AreaName, (world: World, report: Report, random: Random) => Area> = {
  http: (world, report, random) => new HttpArea(world, report, random),
  proxy: (world, report, random) => new ProxyArea(world, report, random),
  sockets: (world, report, random) => new SocketsArea(world, report, random),
  ring: (_world, report, random) => new RingArea(report, random),
  lifecycle: (world, report, random) => new LifecycleArea(world, report, random),
};

/** Milliseconds of a round. */
const ROUND = 12_000;
/** Rounds after which all processes are restarted with other options. */
const ROUNDS = 5;
/** Milliseconds without a count after which everything is considered to hang. */
const STANDSTILL = 120_000;

export async function run(seconds: number, names: readonly AreaName[], report: Report, random: Random): Promise<void> {
  const end = performance.now() + seconds * 1000;
  const watchdog = setInterval(() => {
    if (performance.now() - report.lastProgress < STANDSTILL) return;
    report.fault('torture', 'standstill', `no progress for ${STANDSTILL} ms`);
    report.print();
    process.exit(1);
  }, 5000);
  const world = await World.create(random.fork(), report);
  let ending = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    // It may be received twice: from the terminal and from the parent process.
    process.on(signal, () => {
      if (ending) return;
      ending = true;
      report.print();
      void world.close().finally(() => process.exit(2));
    });
  }
  try {
    while (performance.now() < end) {
      const areas = names.map((name) => MAKERS[name](world, report, random.fork()));
      for (const area of areas) await area.start();
      for (let round = 0; round < ROUNDS && performance.now() < end; round++) {
        const controller = new AbortController();
        const running = areas.map((area) => area.round(controller.signal));
        await sleep(Math.min(ROUND, Math.max(1000, end - performance.now())));
        controller.abort();
        await Promise.all(running);
        for (const area of areas) await area.check();
        report.count('torture', 'rounds');
        report.log(`round ${round + 1} done, ${report.faultCount} faults`);
      }
      for (const area of areas) await area.end();
    }
  } finally {
    clearInterval(watchdog);
    await world.close();
  }
}
