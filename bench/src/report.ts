// Summarizes samples in rows, and formats rows as a Markdown table.

import type { Sample } from './compare.ts';
import type { JsonSample } from './json-under-load.ts';
import { pairedRatio, type Summary, summarize } from './stats.ts';

export const BASELINES = ['fastify-static', 'send-buffer'];

type Ratios = Record<string, number | null>;

export interface CompareRow {
  size: string;
  variant: string;
  connections: number;
  requestsPerSecond: Summary | null;
  bytesPerSecond: Summary | null;
  p50Ms: Summary | null;
  p99Ms: Summary | null;
  p999Ms: Summary | null;
  residentBytes: Summary | null;
  cpuSecondsPerGb: Summary | null;
  cpuMicrosPerRequest: Summary | null;
  coreBusy: Summary | null;
  /** Ratios of bytes per second within each round: 2 is twice the baseline. */
  ratios: Ratios;
}

export interface JsonRow {
  downloads: number;
  variant: string;
  bytesPerSecond: Summary | null;
  jsonP50Ms: Summary | null;
  jsonP99Ms: Summary | null;
  jsonMaxMs: Summary | null;
  jsonRequests: Summary | null;
  cpuSecondsPerGb: Summary | null;
  ratios: Ratios;
}

export function compareRows(samples: readonly Sample[]): CompareRow[] {
  return groups(samples, ({ size }) => size).map(({ group, own }) => ({
    size: own[0]!.size,
    variant: own[0]!.variant,
    connections: own[0]!.connections,
    requestsPerSecond: over(own, 'requestsPerSecond'),
    bytesPerSecond: over(own, 'bytesPerSecond'),
    p50Ms: over(own, 'p50Ms'),
    p99Ms: over(own, 'p99Ms'),
    p999Ms: over(own, 'p999Ms'),
    residentBytes: over(own, 'residentBytes'),
    cpuSecondsPerGb: over(own, 'cpuSecondsPerGb'),
    cpuMicrosPerRequest: over(own, 'cpuMicrosPerRequest'),
    coreBusy: over(own, 'coreBusy'),
    ratios: ratios(group, own),
  }));
}

export function jsonRows(samples: readonly JsonSample[]): JsonRow[] {
  return groups(samples, ({ downloads }) => String(downloads)).map(({ group, own }) => ({
    downloads: own[0]!.downloads,
    variant: own[0]!.variant,
    bytesPerSecond: over(own, 'bytesPerSecond'),
    jsonP50Ms: over(own, 'jsonP50Ms'),
    jsonP99Ms: over(own, 'jsonP99Ms'),
    jsonMaxMs: over(own, 'jsonMaxMs'),
    jsonRequests: over(own, 'jsonRequests'),
    cpuSecondsPerGb: over(own, 'cpuSecondsPerGb'),
    ratios: ratios(group, own),
  }));
}

export function compareTable(rows: readonly CompareRow[]): string {
  return table(
    [
      'size',
      'server',
      'requests/s',
      'MB/s',
      'p50 ms',
      'p99 ms',
      'p99.9 ms',
      'CPU s/GB',
      'CPU us/request',
      'core busy',
      'memory MB',
      ...BASELINES.map((name) => `x ${name}`),
    ],
    rows.map((row) => [
      row.size,
      row.variant,
      spread(row.requestsPerSecond),
      spread(row.bytesPerSecond, 1e6),
      middle(row.p50Ms),
      middle(row.p99Ms),
      middle(row.p999Ms),
      middle(row.cpuSecondsPerGb),
      middle(row.cpuMicrosPerRequest),
      row.coreBusy === null ? '' : `${Math.round(row.coreBusy.median * 100)} %`,
      row.residentBytes === null ? '' : format(row.residentBytes.median / 1e6),
      ...ratioCells(row.ratios),
    ]),
  );
}

export function jsonTable(rows: readonly JsonRow[]): string {
  return table(
    [
      'downloads',
      'server',
      'MB/s',
      'JSON p50 ms',
      'JSON p99 ms',
      'JSON max ms',
      'JSON requests',
      'CPU s/GB',
      ...BASELINES.map((name) => `MB/s x ${name}`),
    ],
    rows.map((row) => [
      String(row.downloads),
      row.variant,
      spread(row.bytesPerSecond, 1e6),
      spread(row.jsonP50Ms),
      spread(row.jsonP99Ms),
      middle(row.jsonMaxMs),
      middle(row.jsonRequests),
      middle(row.cpuSecondsPerGb),
      ...ratioCells(row.ratios),
    ]),
  );
}

interface Measured {
  variant: string;
  round: number;
  bytesPerSecond: number;
}

/** One entry per variant within each group, in the order of the samples. */
function groups<S extends Measured>(samples: readonly S[], key: (sample: S) => string): { group: S[]; own: S[] }[] {
  return [...new Set(samples.map(key))].flatMap((value) => {
    const group = samples.filter((sample) => key(sample) === value);
    return [...new Set(group.map(({ variant }) => variant))].map((variant) => ({
      group,
      own: group.filter((sample) => sample.variant === variant),
    }));
  });
}

function over<S, K extends keyof S>(samples: readonly S[], key: K): Summary | null {
  return summarize(
    samples.map((sample) => sample[key]).filter((value): value is S[K] & number => typeof value === 'number'),
  );
}

function ratios<S extends Measured>(group: readonly S[], own: readonly S[]): Ratios {
  const speeds = (samples: readonly S[]) => samples.map(({ bytesPerSecond }) => bytesPerSecond);
  return Object.fromEntries(
    BASELINES.map((name) => [name, pairedRatio(speeds(own), speeds(group.filter(({ variant }) => variant === name)))]),
  );
}

function ratioCells(values: Ratios): string[] {
  return BASELINES.map((name) => values[name]?.toFixed(2) ?? '');
}

function spread(summary: Summary | null, unit = 1): string {
  if (summary === null) return '';
  return `${format(summary.median / unit)} (${format(summary.min / unit)} to ${format(summary.max / unit)})`;
}

function middle(summary: Summary | null): string {
  return summary === null ? '' : format(summary.median);
}

/** Three significant digits, and all digits of the integer part. */
function format(value: number): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3;
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function table(head: string[], rows: string[][]): string {
  const widths = head.map((cell, column) => Math.max(cell.length, ...rows.map((row) => row[column]!.length)));
  const line = (cells: string[]) =>
    `| ${cells.map((cell, column) => (column < 2 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!))).join(' | ')} |`;
  const rule = `|${widths.map((width, column) => (column < 2 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`;
  return [line(head), rule, ...rows.map(line)].join('\n');
}
