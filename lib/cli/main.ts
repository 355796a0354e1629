#!/usr/bin/env node
/** The command line. Exit codes: 0 for success, 1 for failure, 2 for wrong usage. */
import { VERSION } from '../util/package.js';
import { bench } from './bench.js';
import { cache } from './cache.js';
import { install } from './install.js';
import { probe } from './probe.js';
import { proxy } from './proxy.js';
import { serve } from './serve.js';
import { UsageError } from './usage.js';

const COMMANDS: Record<string, { run: (args: string[]) => Promise<void>; summary: string }> = {
  bench: { run: bench, summary: 'measure the methods of sending a file on this machine' },
  cache: { run: cache, summary: 'show, warm and evict files in the page cache' },
  install: { run: install, summary: 'install the native binary, if it is missing' },
  probe: { run: probe, summary: 'test which features this kernel supports' },
  proxy: { run: proxy, summary: 'relay connections to other servers' },
  serve: { run: serve, summary: 'serve a directory over HTTP' },
};

function help(): string {
  const lines = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(8)} ${summary}`);
  return `usage: zerosend <command> [options]\n\n${lines.join('\n')}\n\nRun "zerosend <command> --help" for the options of a command, "zerosend --version" for the version.`;
}

async function main([name, ...args]: string[]): Promise<void> {
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    console.log(help());
    if (name === undefined) process.exitCode = 2;
    return;
  }
  if (name === '--version' || name === '-v') {
    console.log(VERSION);
    return;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) throw new UsageError(`unknown command '${name}'; see zerosend --help`);
  await command.run(args);
}

main(process.argv.slice(2)).catch((error: unknown) => {
  const message = error instanceof Error ? error.message : String(error);
  console.error(`zerosend: ${message}`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
});
