// Command-line options of the comparison.

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
  /** One second of load per server before the rounds. */
  warmUp: boolean;
  /** Connections of the load generator. Undefined: depends on the file size. */
  connections: number | undefined;
  /** Numbers of concurrent downloads for `json-under-load`, one measurement each. */
  downloads: number[];
  out: string;
}

/** The servers of zerosend, then the others. */
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

/** Variants without a JSON route of their server. */
export const NO_JSON = ['zerosend-server', 'nginx', 'caddy', 'static-web-server'];

export const USAGE = `usage: compare.ts [options]

  --sizes 1k,64k       file sizes (default 1k,16k,64k,256k,1m,16m; 256m on request)
  --variants a,b       any of ${VARIANTS.join(', ')}
                       (default all; static-web-server only if installed; with
                       --json-under-load those with a JSON route)
  --rounds n           rounds; each measures every variant once (default 5)
  --duration s         seconds per measurement, an integer (default 2, with --json-under-load 4)
  --connections n      connections of the load generator (default 64, for files from 16m 16);
                       with --json-under-load the concurrent downloads (default 16 and 256)
  --json-under-load    measure the latency of a JSON route during downloads of 16m
  --smoke              one short round to check that everything works
  --out file           output file for the figures (default results/<name>.json)`;

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
    throw new Error(`invalid --sizes '${values.sizes}': --json-under-load takes one size`);
  }
  const usual = VARIANTS.filter((variant) => {
    if (mode === 'json-under-load') return !NO_JSON.includes(variant);
    return variant !== 'static-web-server' || isInstalled(variant);
  });
  const variants = list('variants', values.variants ?? usual.join(','));
  for (const variant of variants) {
    if (!VARIANTS.includes(variant)) throw new Error(`invalid --variants '${variant}': use ${VARIANTS.join(', ')}`);
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
  if (items.size === 0) throw new Error(`invalid --${name} '${text}': the list is empty`);
  return [...items];
}

function count(name: string, text: string, max: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > max) {
    throw new Error(`invalid --${name} '${text}': use an integer from 1 to ${max}`);
  }
  return value;
}
