// The report of the whole comparison, as Markdown and as a page with charts.

import { type Bar, chart, escaped, htmlTable, page } from '../../lib/cli/charts.ts';
import { BASELINES, type CompareRow, compareTable, type JsonRow, jsonTable } from './report.ts';
import type { Summary } from './stats.ts';

interface Head {
  machine: { kernel: string; arch: string; cpus: number; node: string };
  cores: { server: number; load: number; probe: number };
}

export interface RelayFigure {
  what: string;
  variant: string;
  unit?: string;
  rate?: Summary;
  ratio?: Summary;
  cpu?: Summary;
  p99?: Summary;
  bytesPerConnection?: number;
}

export interface Results {
  files: Head & { rows: CompareRow[]; settings: { rounds: number; duration: number } };
  json: Head & { rows: JsonRow[]; settings: { rounds: number } };
  relays: Head & { figures: RelayFigure[]; rounds: number };
}

/** Ours, to be told apart. */
const isOurs = (variant: string) => variant.startsWith('zerosend') || variant === 'front-door';

const WHAT: Record<string, string> = {
  zerosend: 'the plugin for Fastify',
  'zerosend-handler': 'createStaticHandler in node:http',
  'front-door': 'Fastify behind the front door',
  'zerosend-server': 'createFileServer, one worker',
  'fastify-static': '@fastify/static',
  sirv: 'sirv in node:http',
  'express-static': 'serve-static in Express',
  'node-stream': 'createReadStream piped to the response in node:http',
  'send-buffer': 'reply.send(buffer) in Fastify, every file preloaded into memory',
  nginx: 'nginx, one worker, sendfile, with open_file_cache',
  caddy: 'Caddy file_server',
  'static-web-server': 'static-web-server, one thread',
};

function place({ machine, cores }: Head): string {
  return (
    `${machine.kernel}, ${machine.arch}, ${machine.cpus} CPUs, Node ${machine.node}. ` +
    `Server on core ${cores.server}, load on core ${cores.load}. Loopback, files in the page cache.`
  );
}

const HOW =
  'Medians of interleaved rounds; the spread is from the slowest to the fastest. The ratios are what carries over to other ' +
  'machines, not the speeds. Where the core of the server is not full, the load was the limit: compare the processor time.';

const names = (rows: readonly { variant: string }[]) =>
  [...new Set(rows.map(({ variant }) => variant))].map((variant) => `${variant}: ${WHAT[variant] ?? variant}`);

export function markdown({ files, json, relays }: Results): string {
  const relayTables = groups(relays.figures).map(([what, figures]) => {
    const rows = figures.map((figure) => `| ${relayCells(figure).join(' | ')} |`);
    return `### ${what}\n\n| ${relayHead(figures[0]).join(' | ')} |\n|${'---|'.repeat(relayHead(figures[0]).length)}\n${rows.join('\n')}`;
  });
  return `# The comparison

${place(files)}

${HOW}

## Files

${files.settings.rounds} rounds of ${files.settings.duration} s. ${BASELINES.map((name) => `"x ${name}"`).join(' and ')}: bytes a second, over theirs.

${names(files.rows)
  .map((name) => `- ${name}`)
  .join('\n')}

${compareTable(files.rows)}

## A JSON route beside downloads of 16 MiB

${jsonTable(json.rows)}

## Relays

${relays.rounds} rounds. "zerosend is": so many times as fast.

${relayTables.join('\n\n')}
`;
}

export function html({ files, json, relays }: Results): string {
  const sections = [...new Set(files.rows.map(({ size }) => size))].map((size) => {
    const rows = files.rows.filter((row) => row.size === size);
    const isSmall = size.endsWith('k');
    const speed = (row: CompareRow) => (isSmall ? row.requestsPerSecond : scaled(row.bytesPerSecond, 1e-6));
    const cost = (row: CompareRow) => (isSmall ? row.cpuMicrosPerRequest : row.cpuSecondsPerGb);
    return `<h2>Files of ${size}</h2>${chart({
      title: isSmall ? 'Requests' : 'Bytes',
      unit: `${isSmall ? 'a second' : 'MB/s'}, more is better; ×: so many times @fastify/static`,
      bars: rows.map((row) => bar(row.variant, speed(row), overFastify(row))),
    })}${chart({
      title: 'Processor time of the server',
      unit: isSmall ? 'microseconds for a request, less is better' : 'seconds for 10^9 bytes, less is better',
      bars: rows.map((row) => bar(row.variant, cost(row), isSmall ? 'µs' : 's')),
    })}${chart({
      title: 'Latency',
      unit: `p99, milliseconds, with ${rows[0]?.connections} connections, less is better`,
      bars: rows.map((row) => bar(row.variant, row.p99Ms, `ms; p50 ${number(row.p50Ms)}, p99.9 ${number(row.p999Ms)}`)),
    })}${chart({
      title: 'Memory of the server',
      unit: 'MB resident after the load',
      bars: rows.map((row) => bar(row.variant, scaled(row.residentBytes, 1e-6), 'MB')),
    })}`;
  });
  const beside = [...new Set(json.rows.map(({ downloads }) => downloads))].map((downloads) => {
    const rows = json.rows.filter((row) => row.downloads === downloads);
    return `${chart({
      title: `The route’s p99 beside ${downloads} downloads`,
      unit: 'milliseconds, less is better',
      bars: rows.map((row) => bar(row.variant, row.jsonP99Ms, `ms; worst ${number(row.jsonMaxMs)}`)),
    })}${chart({
      title: 'The downloads meanwhile',
      unit: 'MB/s, more is better',
      bars: rows.map((row) => bar(row.variant, scaled(row.bytesPerSecond, 1e-6), 'MB/s')),
    })}`;
  });
  const piped = groups(relays.figures).map(([what, figures]) => {
    if (figures[0]?.rate === undefined) {
      return chart({
        title: what,
        unit: 'bytes of the relay for each, less is better',
        bars: figures.map(({ variant, bytesPerConnection = 0 }) => bar(variant, one(bytesPerConnection), 'bytes')),
      });
    }
    const table = htmlTable(relayHead(figures[0]), figures.map(relayCells));
    const unit = figures[0]?.unit ?? '';
    return `${chart({ title: what, unit: `${unit}, more is better`, bars: figures.map(({ variant, rate }) => bar(variant, rate ?? null, '')) })}${table}`;
  });
  return page(
    'The comparison',
    `<h1>The comparison</h1><p class="soft">${escaped(place(files))}</p><p class="soft">${escaped(HOW)}</p>
<ul>${names(files.rows)
      .map((name) => `<li>${escaped(name)}</li>`)
      .join('')}</ul>
${sections.join('\n')}
<h2>A JSON route beside downloads of 16 MiB</h2>${beside.join('\n')}
<h2>Relays</h2>${piped.join('\n')}`,
  );
}

function bar(variant: string, summary: Summary | null, note: string): Bar {
  return {
    label: variant,
    segments: [summary?.median ?? 0],
    spread: summary === null ? undefined : [summary.min, summary.max],
    note: summary === null ? 'nothing was complete' : `${number(summary)} ${note}`.trim(),
    marked: isOurs(variant),
  };
}

function overFastify({ ratios }: CompareRow): string {
  const ratio = ratios['fastify-static'];
  return typeof ratio === 'number' ? `(${ratio.toFixed(1)} ×)` : '';
}

const scaled = (summary: Summary | null, by: number): Summary | null =>
  summary && {
    median: summary.median * by,
    min: summary.min * by,
    max: summary.max * by,
    q1: summary.q1 * by,
    q3: summary.q3 * by,
  };

const one = (value: number): Summary => ({ median: value, min: value, max: value, q1: value, q3: value });

function number(summary: Summary | null): string {
  if (summary === null) return '—';
  const { median } = summary;
  return median >= 1000 ? Math.round(median).toLocaleString('en') : median.toPrecision(3);
}

function groups(figures: readonly RelayFigure[]): [string, RelayFigure[]][] {
  return [...new Set(figures.map(({ what }) => what))].map((what) => [
    what,
    figures.filter((one) => one.what === what),
  ]);
}

function relayHead(figure: RelayFigure | undefined): string[] {
  if (figure?.rate === undefined) return ['relay', 'bytes for each'];
  return [
    'relay',
    figure.unit ?? '',
    'zerosend is',
    'spread',
    figure.unit === 'MB/s' ? 'CPU s/GB' : 'CPU s/100,000',
    'p99 ms',
  ];
}

function relayCells({ variant, rate, ratio, cpu, p99, bytesPerConnection }: RelayFigure): string[] {
  if (rate === undefined) return [variant, String(bytesPerConnection)];
  return [
    variant,
    number(rate),
    ratio?.median.toFixed(2) ?? '',
    ratio === undefined ? '' : `${ratio.min.toFixed(2)} to ${ratio.max.toFixed(2)}`,
    cpu?.median.toFixed(3) ?? '',
    p99 === undefined || p99 === null ? '' : p99.median.toFixed(2),
  ];
}
