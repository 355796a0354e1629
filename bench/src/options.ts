// The command line of the comparison, checked once.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { parseSize } from './files.ts';

export interface Options {
  mode: 'compare' | 'json-under-load';
  sizes: string[];
  variants: string[];
  rounds: number;
  duration: number;
  /** A second of each before the rounds. */
  warmUp: boolean;
  /** Connections of the load generator; undefined lets the size decide. */
  connections: number | undefined;
  /** Concurrent downloads, one measurement each, of `json-under-load`. */
  downloads: number[];
  out: string;
}

/** Ours, and what they are compared with. */
export const VARIANTS = [
  'zerosend',
  'zerosend-handler',
  'front-door',
  'zerosend-server',
  'fastify-static',
  'sirv',
  'express-static',
  'node-stream',
  'send-buffer',
  'nginx',
  'caddy',
  'static-web-server',
];

/** Without a route for JSON, or with one that is another's. */
export const NO_JSON = ['zerosend-server', 'nginx', 'caddy', 'static-web-server'];

export const USAGE = `usage: compare.ts [options]

  --sizes 1k,64k       file sizes (default 1k,16k,64k,256k,1m,16m; 256m on request)
  --variants a,b       any of ${VARIANTS.join(', ')}
                       (default all; static-web-server when it is installed; with
                       --json-under-load those that have a JSON route)
  --rounds n           rounds, every variant once in each (default 5)
  --duration s         whole seconds of one measurement (default 2, with --json-under-load 4)
  --connections n      connections of the load generator (default 64, from 16m on 16);
                       with --json-under-load the concurrent downloads (default 16 and 256)
  --json-under-load    measure a JSON route's latency beside downloads of 16m
  --smoke              one short round, to see that everything runs
  --out file           where the figures go (default results/<name>.json)`;

export function parseOptions(args: string[]): Options | 'help' {
  const { values } = parseArgs({
    args,
    options: {
      sizes: { type: 'string' },
      variants: { type: 'string' },
      rounds: { type: 'string' },
      duration: { type: 'string' },
      connections: { type: 'string' },
      'json-under-load': { type: 'boolean', default: false },
      smoke: { type: 'boolean', default: false },
      out: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return 'help';

  const mode = values['json-under-load'] ? 'json-under-load' : 'compare';
  const { smoke } = values;
  const sizes = list(
    'sizes',
    values.sizes ?? (mode === 'json-under-load' ? '16m' : smoke ? '1k' : '1k,16k,64k,256k,1m,16m'),
  );
  sizes.forEach(parseSize);
  if (mode === 'json-under-load' && sizes.length > 1) {
    throw new Error(`--sizes: "${values.sizes}" is more than one size; --json-under-load takes one`);
  }
  const usual = VARIANTS.filter((variant) => {
    if (mode === 'json-under-load') return !NO_JSON.includes(variant);
    return variant !== 'static-web-server' || isInstalled(variant);
  });
  const variants = list('variants', values.variants ?? usual.join(','));
  for (const variant of variants) {
    if (!VARIANTS.includes(variant)) throw new Error(`--variants: "${variant}" is not one of ${VARIANTS.join(', ')}`);
  }
  const connections = values.connections === undefined ? undefined : count('connections', values.connections, 10_000);
  return {
    mode,
    sizes,
    variants,
    rounds: count('rounds', values.rounds ?? (smoke ? '1' : '5'), 1000),
    duration: count('duration', values.duration ?? (smoke ? '1' : mode === 'json-under-load' ? '4' : '2'), 3600),
    warmUp: !smoke,
    connections,
    downloads: connections !== undefined ? [connections] : smoke ? [16] : [16, 256],
    out: values.out ?? fileURLToPath(new URL(`../results/${smoke ? `smoke-${mode}` : mode}.json`, import.meta.url)),
  };
}

function isInstalled(command: string): boolean {
  return spawnSync(command, ['--version'], { stdio: 'ignore' }).error === undefined;
}

function list(name: string, text: string): string[] {
  const items = new Set(
    text
      .split(',')
      .map((item) => item.trim())
      .filter((item) => item !== ''),
  );
  if (items.size === 0) throw new Error(`--${name}: "${text}" names nothing`);
  return [...items];
}

function count(name: string, text: string, most: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > most) {
    throw new Error(`--${name}: "${text}" is not a whole number from 1 to ${most}`);
  }
  return value;
}
