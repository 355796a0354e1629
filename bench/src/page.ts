// The report of the comparison, as Markdown and as an HTML page with charts.

import { type Bar, chart, escaped, htmlTable, page } from '../../lib/cli/charts.ts';
import { BASELINES, type CompareRow, compareTable, type JsonRow, jsonTable } from './report.ts';
import type { Summary } from './stats.ts';

interface Head {
  machine: { kernel: string; arch: string; cpus: number; node: string };
  cores: { server: number; load: number; probe: number };
}

export interface RelayFigure {
  name: string;
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

/** Variants that are highlighted. */
const isOurs = (variant: string) => variant.startsWith('zerosend') || variant === 'front-door';

const DESCRIPTIONS: Record<string, string> = {
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

function environment({ machine, cores }: Head): string {
  return (
    `${machine.kernel}, ${machine.arch}, ${machine.cpus} CPUs, Node ${machine.node}. ` +
    `Server on core ${cores.server}, load generator on core ${cores.load}. Loopback, files in the page cache.`
  );
}

const METHOD =
  'Medians of interleaved rounds; the spread is from the slowest to the fastest round. Ratios carry over to other machines, absolute ' +
  'speeds do not. Where a server does not use its core fully, the load generator was the limit: compare the CPU time.';

const names = (rows: readonly { variant: string }[]) =>
  [...new Set(rows.map(({ variant }) => variant))].map((variant) => `${variant}: ${DESCRIPTIONS[variant] ?? variant}`);

export function markdown({ files, json, relays }: Results): string {
  const relayTables = groups(relays.figures).map(([name, figures]) => {
    const rows = figures.map((figure) => `| ${relayCells(figure).join(' | ')} |`);
    return `### ${name}\n\n| ${relayHead(figures[0]).join(' | ')} |\n|${'---|'.repeat(relayHead(figures[0]).length)}\n${rows.join('\n')}`;
  });
  return `# Comparison with other servers and relays

${environment(files)}

${METHOD}

## Files

${files.settings.rounds} rounds of ${files.settings.duration} s. ${BASELINES.map((name) => `"x ${name}"`).join(' and ')}: bytes per second relative to that server.

${names(files.rows)
  .map((name) => `- ${name}`)
  .join('\n')}

${compareTable(files.rows)}

## A JSON route during downloads of 16 MiB

${jsonTable(json.rows)}

## Relays

${relays.rounds} rounds. "zerosend ×": speed of zerosend relative to the relay.

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
      title: 'Throughput',
      unit: `${isSmall ? 'requests/s' : 'MB/s'}, more is better; ×: relative to @fastify/static`,
      bars: rows.map((row) => bar(row.variant, speed(row), overFastify(row))),
    })}${chart({
      title: 'CPU time of the server',
      unit: isSmall ? 'microseconds per request, less is better' : 'seconds per 10^9 bytes, less is better',
      bars: rows.map((row) => bar(row.variant, cost(row), isSmall ? 'µs' : 's')),
    })}${chart({
      title: 'Latency',
      unit: `p99 in milliseconds with ${rows[0]?.connections} connections, less is better`,
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
      title: `p99 latency of the route during ${downloads} downloads`,
      unit: 'milliseconds, less is better',
      bars: rows.map((row) => bar(row.variant, row.jsonP99Ms, `ms; maximum ${number(row.jsonMaxMs)}`)),
    })}${chart({
      title: 'Throughput of the downloads',
      unit: 'MB/s, more is better',
      bars: rows.map((row) => bar(row.variant, scaled(row.bytesPerSecond, 1e-6), 'MB/s')),
    })}`;
  });
  const piped = groups(relays.figures).map(([name, figures]) => {
    if (figures[0]?.rate === undefined) {
      return chart({
        title: name,
        unit: 'resident bytes of the relay per connection, less is better',
        bars: figures.map(({ variant, bytesPerConnection = 0 }) => bar(variant, one(bytesPerConnection), 'bytes')),
      });
    }
    const table = htmlTable(relayHead(figures[0]), figures.map(relayCells));
    const unit = figures[0]?.unit ?? '';
    return `${chart({ title: name, unit: `${unit}, more is better`, bars: figures.map(({ variant, rate }) => bar(variant, rate ?? null, '')) })}${table}`;
  });
  return page(
    'Comparison',
    `<h1>Comparison with other servers and relays</h1><p class="soft">${escaped(environment(files))}</p><p class="soft">${escaped(METHOD)}</p>
<ul>${names(files.rows)
      .map((name) => `<li>${escaped(name)}</li>`)
      .join('')}</ul>
${sections.join('\n')}
<h2>A JSON route during downloads of 16 MiB</h2>${beside.join('\n')}
<h2>Relays</h2>${piped.join('\n')}`,
  );
}

function bar(variant: string, summary: Summary | null, note: string): Bar {
  return {
    label: variant,
    segments: [summary?.median ?? 0],
    spread: summary === null ? undefined : [summary.min, summary.max],
    note: summary === null ? 'no complete response' : `${number(summary)} ${note}`.trim(),
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
  return [...new Set(figures.map(({ name }) => name))].map((name) => [
    name,
    figures.filter((one) => one.name === name),
  ]);
}

function relayHead(figure: RelayFigure | undefined): string[] {
  if (figure?.rate === undefined) return ['relay', 'bytes per connection'];
  return [
    'relay',
    figure.unit ?? '',
    'zerosend ×',
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
