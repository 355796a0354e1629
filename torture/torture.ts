/**
 * `npm run torture -- [--minutes=<n>] [--seconds=<n>] [--seed=<n>] [--only=<area>,...]`: runs everything at the same time. Checks every
 * byte, and after each round that no resources are leaked. Exit code 1 when faults were found.
 */
import { parseArgs } from 'node:util';

import { Random } from './src/random.js';
import { Report } from './src/report.js';
import { AREAS, type AreaName, run } from './src/run.js';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string' },
    seconds: { type: 'string' },
    seed: { type: 'string' },
    only: { type: 'string' },
  },
});

const number = (name: 'minutes' | 'seconds' | 'seed', fallback: number): number => {
  const value = values[name] === undefined ? fallback : Number(values[name]);
  if (Number.isFinite(value) && value >= 0) return value;
  console.error(`invalid --${name} '${values[name]}': use a number`);
  process.exit(2);
};

const seconds = values.seconds === undefined ? number('minutes', 1) * 60 : number('seconds', 60);
const seed = number('seed', Math.floor(Math.random() * 2 ** 32));
const only = (values.only?.split(',') ?? AREAS) as AreaName[];
const unknown = only.filter((name) => !AREAS.includes(name));
if (unknown.length > 0) {
  console.error(`unknown area '${unknown.join(',')}': use ${AREAS.join(', ')}`);
  process.exit(2);
}

const report = new Report(seed);
report.log(`${seconds} seconds of ${only.join(', ')}; --seed ${seed}`);
await run(seconds, only, report, new Random(seed));
report.print();
process.exit(report.faultCount === 0 ? 0 : 1);
