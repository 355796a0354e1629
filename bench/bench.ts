// Runs the whole comparison: file servers, a JSON route during downloads, and relays. Writes results/*.json, and from these
// results/report.md, results/report.html and results/chart.svg. `--smoke`: a run of one minute to check that everything works.
// `--report`: only writes the report, from existing figures.

import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { html, markdown, type Results } from './src/page.ts';
import { readmeChart } from './src/readme-chart.ts';

const smoke = process.argv.includes('--smoke');
const reportOnly = process.argv.includes('--report');
const HERE = fileURLToPath(new URL('.', import.meta.url));
const out = (name: string) => `${HERE}results/${smoke ? 'smoke-' : ''}${name}`;

/** The programs of the parts, with their arguments. */
const parts: Record<keyof Results, string[]> = {
  files: [
    'compare.ts',
    ...(smoke ? ['--smoke'] : ['--sizes', '1k,16k,64k,1m,16m', '--rounds', '3', '--duration', '1']),
  ],
  json: [
    'compare.ts',
    '--json-under-load',
    ...(smoke
      ? ['--smoke', '--variants', 'zerosend,fastify-static']
      : ['--rounds', '3', '--duration', '2', '--connections', '16']),
  ],
  relays: [
    'relays.ts',
    ...(smoke ? ['--smoke', '--variants', 'direct,haproxy,node pipe'] : ['--rounds', '3', '--mebibytes', '512']),
  ],
};
const files: Record<keyof Results, string> = {
  files: out('compare.json'),
  json: out('json-under-load.json'),
  // The long run that docs/relay.md quotes is results/relays.json.
  relays: out('relays-short.json'),
};

mkdirSync(`${HERE}results`, { recursive: true });
const begun = performance.now();
for (const [part, [program, ...args]] of Object.entries(parts) as [keyof Results, string[]][]) {
  if (reportOnly) break;
  console.error(`\n== ${part} ==`);
  const code = await new Promise<number | null>((resolve, reject) => {
    const node = ['--import', import.meta.resolve('tsx'), HERE + program, ...args, '--out', files[part]];
    spawn(process.execPath, node, { stdio: 'inherit' }).on('error', reject).on('close', resolve);
  });
  if (code !== 0) {
    console.error(`${part} failed; no report written`);
    process.exit(1);
  }
}
const read = (part: keyof Results) => JSON.parse(readFileSync(files[part], 'utf8'));
const results: Results = { files: read('files'), json: read('json'), relays: read('relays') };
writeFileSync(out('report.md'), markdown(results));
writeFileSync(out('report.html'), html(results));
writeFileSync(out('chart.svg'), readmeChart(results));
const minutes = ((performance.now() - begun) / 60_000).toFixed(1);
console.error(
  `\n${minutes} minutes; report written to ${relative('.', out('report.md'))} and ${relative('.', out('report.html'))}`,
);
