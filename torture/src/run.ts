/** The rounds: start everything, let it run, let it come to rest, look at what is left. */
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

/** A part of the product with its processes. */
export interface Area {
  start(): Promise<void>;
  /** All that happens in a round, until the signal is aborted; resolves when everything is at rest. */
  round(signal: AbortSignal): Promise<void>;
  /** Compares what is held with the first round. */
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
/** Rounds after which all processes are started again, with other options. */
const ROUNDS = 5;
/** Milliseconds in which nothing at all was counted: everything hangs. */
const STANDSTILL = 120_000;

export async function run(seconds: number, names: readonly AreaName[], report: Report, random: Random): Promise<void> {
  const end = performance.now() + seconds * 1000;
  const watchdog = setInterval(() => {
    if (performance.now() - report.lastProgress < STANDSTILL) return;
    report.fault('torture', 'standstill', `nothing has happened for ${STANDSTILL} ms`);
    report.print();
    process.exit(1);
  }, 5000);
  const world = await World.create(random.fork(), report);
  let ending = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    // It may come twice: from the terminal, and from the program that has started this one.
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
