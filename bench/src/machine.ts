// Where a figure was taken, in general terms, and which core does what.

import { availableParallelism, release } from 'node:os';

export interface Cores {
  server: number;
  load: number;
  probe: number;
}

/** Server and load apart; the latency probe gets a core of its own where there is a third. */
export function chooseCores(): Cores {
  const cpus = availableParallelism();
  if (cpus < 2) throw new Error('the comparison needs two cores: one for the server, one for the load');
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
