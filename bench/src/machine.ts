// The machine, and the cores of the processes.

import { availableParallelism, release } from 'node:os';

export interface Cores {
  server: number;
  load: number;
  probe: number;
}

/** Separate cores for server and load generator, and for the latency probe if there is a third core. */
export function chooseCores(): Cores {
  const cpus = availableParallelism();
  if (cpus < 2) throw new Error('at least two cores are required, one for the server and one for the load generator');
  return { server: 0, load: 1, probe: cpus > 2 ? 2 : 1 };
}

export function describeMachine() {
  return {
    kernel: `Linux ${release().split('.').slice(0, 2).join('.')}`,
    arch: process.arch,
    cpus: availableParallelism(),
    node: process.version,
  };
}
