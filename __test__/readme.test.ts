/** The figures in the READMEs match bench/results. */
import { readFileSync } from 'node:fs';

import test from 'ava';

const read = (name: string) => readFileSync(new URL(`../${name}`, import.meta.url), 'utf8');

interface Row {
  size: string;
  variant: string;
  ratios: Record<string, number>;
  cpuSecondsPerGb: { median: number };
}

const { rows } = JSON.parse(read('bench/results/compare.json')) as { rows: Row[] };
const SIZES = ['1k', '16k', '64k', '1m', '16m'];
const find = (size: string, variant: string) => rows.find((row) => row.size === size && row.variant === variant) as Row;

for (const file of ['README.md', 'README.zh-CN.md']) {
  test(`${file}: times as fast as @fastify/static`, (t) => {
    const text = read(file);
    let checked = 0;
    for (const [label, variant] of [
      ['`zerosend/fastify`', 'zerosend'],
      ['Fastify behind the front door', 'front-door'],
      ['Fastify 加 `frontDoor`', 'front-door'],
      ['nginx', 'nginx'],
      ['`reply.send(buffer)`, files preloaded into memory', 'send-buffer'],
    ] as const) {
      const line = text.split('\n').find((one) => one.startsWith(`| ${label} |`));
      if (line === undefined) continue;
      const figures = line
        .split('|')
        .slice(2, -1)
        .map((cell) => cell.trim());
      t.deepEqual(
        figures,
        SIZES.map((size) => (find(size, variant).ratios['fastify-static'] as number).toFixed(1)),
        label,
      );
      checked += figures.length;
    }
    t.true(checked >= 15);
  });
}

test('README.md: CPU time per byte', (t) => {
  const [, list = ''] =
    /CPU time per byte of `zerosend\/fastify`, relative to `@fastify\/static`:\s+([\d, and]+) %/.exec(
      read('README.md'),
    ) ?? [];
  const cost = (size: string, variant: string) => find(size, variant).cpuSecondsPerGb.median;
  t.deepEqual(
    list.split(/, | and /).map(Number),
    SIZES.map((size) => Math.round((100 * cost(size, 'zerosend')) / cost(size, 'fastify-static'))),
  );
});
