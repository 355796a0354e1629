// Measures zerosend and other servers with the same files and prints the figures.

import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, relative, resolve } from 'node:path';
import { compare } from './src/compare.ts';
import { makeFiles } from './src/files.ts';
import { jsonUnderLoad } from './src/json-under-load.ts';
import { chooseCores, describeMachine } from './src/machine.ts';
import { NO_JSON, type Options, parseOptions, USAGE } from './src/options.ts';
import { compareRows, compareTable, jsonRows, jsonTable } from './src/report.ts';
import { type Server, startServer, verifyJson, verifyServer } from './src/servers.ts';
import { ensureTools } from './src/tools.ts';

try {
  const options = parseOptions(process.argv.slice(2));
  if (options === 'help') console.log(USAGE);
  else await main(options);
} catch (error) {
  console.error((error as Error).message);
  process.exit(1);
}

async function main(options: Options): Promise<void> {
  ensureTools(options.variants.filter((variant) => variant === 'nginx' || variant === 'caddy'));
  const cores = chooseCores();
  const folder = makeFiles(options.sizes);
  process.once('exit', folder.remove);
  process.once('SIGINT', () => process.exit(130));
  process.once('SIGTERM', () => process.exit(143));

  const servers: Server[] = [];
  try {
    for (const variant of options.variants) {
      const server = await startServer(variant, folder.root, cores.server);
      servers.push(server);
      await verifyServer(server, folder.files);
      if (!NO_JSON.includes(variant)) await verifyJson(server);
    }
    const log = (line: string) => console.error(line);
    const started = new Date().toISOString();
    const measured =
      options.mode === 'compare'
        ? await compare(servers, folder.files, options, cores, log).then((samples) => {
            const rows = compareRows(samples);
            return { rows, samples, table: compareTable(rows) };
          })
        : await jsonUnderLoad(servers, folder.files[0]!, options, cores, log).then((samples) => {
            const rows = jsonRows(samples);
            return { rows, samples, table: jsonTable(rows) };
          });

    const { table, ...figures } = measured;
    const machine = describeMachine();
    const { out, mode, ...settings } = options;
    mkdirSync(dirname(resolve(out)), { recursive: true });
    writeFileSync(out, `${JSON.stringify({ mode, started, machine, cores, settings, ...figures }, null, 2)}\n`);

    console.log(table);
    console.log(
      `\nMedian (min to max) of ${options.rounds} rounds of ${options.duration} s; ratios are medians of the ratios of bytes/s within each round.`,
    );
    console.log(
      `${machine.kernel}, ${machine.arch}, ${machine.cpus} CPUs, Node ${machine.node}; server on core ${cores.server}, load on core ${cores.load}${
        mode === 'json-under-load' ? `, JSON client on core ${cores.probe}` : ''
      }. Loopback, files in the page cache.`,
    );
    console.error(`written to ${relative('.', out)}`);
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
  }
}
