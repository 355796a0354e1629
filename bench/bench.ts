// The whole comparison: servers of files, a JSON route beside downloads, and relays. Writes results/*.json, and from these
// results/report.md and results/report.html. `--smoke` sees in a minute whether everything runs; `--report` only writes the report.

import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { html, markdown, type Results } from './src/page.ts';
import { readmeChart } from './src/readme-chart.ts';

const smoke = process.argv.includes('--smoke');
/** Only the report, of figures that are there. */
const reportOnly = process.argv.includes('--report');
const HERE = fileURLToPath(new URL('.', import.meta.url));
const out = (name: string) => `${HERE}results/${smoke ? 'smoke-' : ''}${name}`;

/** What is run, how, and where it writes its figures. */
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
    console.error(`${part} has failed: no report`);
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
  `\n${minutes} minutes; the report is in ${relative('.', out('report.md'))} and ${relative('.', out('report.html'))}`,
);
