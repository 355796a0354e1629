import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseStat } from '../src/cpu.ts';
import { parseSize } from '../src/files.ts';
import { parseOptions } from '../src/options.ts';
import { compareRows, compareTable } from '../src/report.ts';
import { median, pairedRatio, quantile, summarize } from '../src/stats.ts';

test('quantiles are interpolated linearly, for values in any order', () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.equal(quantile([0, 10], 0.25), 2.5);
  assert.equal(quantile([7], 0.99), 7);
  assert.deepEqual(summarize([1, 2, 3, 4, 5]), { median: 3, min: 1, max: 5, q1: 2, q3: 4 });
  assert.equal(summarize([]), null);
});

test('a ratio pairs the values of each round and requires both sides', () => {
  assert.equal(pairedRatio([2, 40, 9], [1, 10, 3]), 3);
  assert.equal(pairedRatio([2], []), null);
  assert.equal(pairedRatio([], []), null);
});

test('CPU time is parsed after a command name with spaces and parentheses', () => {
  const stat = '4242 (a) b (c) S 1 4242 4242 0 -1 4194304 900 0 0 0 150 25 7 3 20 0 11 0 5 1 2';
  assert.equal(parseStat(stat), 1.75);
});

test('sizes are powers of two', () => {
  assert.equal(parseSize('64k'), 65536);
  assert.equal(parseSize('16m'), 16777216);
  for (const wrong of ['', '0k', '64', '1g', '-1k', '1.5m'])
    assert.throws(() => parseSize(wrong), new RegExp(`invalid --sizes '${wrong}'`));
});

test('the error of an invalid option contains its name, its value and the allowed values', () => {
  assert.throws(
    () => parseOptions(['--variants', 'nothing']),
    /invalid --variants 'nothing': use zerosend, zerosend-handler, front-door/,
  );
  assert.throws(() => parseOptions(['--rounds', '0']), /invalid --rounds '0': use an integer from 1 to 1000/);
  assert.throws(() => parseOptions(['--duration', '2.5']), /invalid --duration '2\.5'/);
  assert.throws(() => parseOptions(['--json-under-load', '--sizes', '1m,16m']), /takes one size/);
  assert.throws(() => parseOptions(['--sizes', ',']), /invalid --sizes ',': the list is empty/);
  assert.throws(() => parseOptions(['--size', '1k']), /--size/);
  assert.equal(parseOptions(['--help']), 'help');
});

test('a row contains the medians and the ratios to both baselines', () => {
  const sample = (variant: string, round: number, speed: number) => ({
    variant,
    round,
    size: '1k',
    fileBytes: 1024,
    connections: 64,
    requestsPerSecond: speed / 1000,
    bytesPerSecond: speed,
    p50Ms: null,
    p99Ms: null,
    p999Ms: null,
    residentBytes: 1e8,
    cpuSecondsPerGb: 1,
    cpuMicrosPerRequest: 10,
    coreBusy: 0.5,
  });
  const rows = compareRows([
    sample('zerosend', 1, 8e6),
    sample('fastify-static', 1, 1e6),
    sample('zerosend', 2, 6e6),
    sample('fastify-static', 2, 1e6),
  ]);
  assert.deepEqual(
    rows.map(({ variant, ratios }) => ({ variant, ratios })),
    [
      { variant: 'zerosend', ratios: { 'fastify-static': 7, 'send-buffer': null } },
      { variant: 'fastify-static', ratios: { 'fastify-static': 1, 'send-buffer': null } },
    ],
  );
  assert.match(compareTable(rows), /\| 1k +\| zerosend +\| +7,000 \(6,000 to 8,000\) \|/);
});
