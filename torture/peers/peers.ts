/**
 * `npm run torture:peers [-- --only=<number>,...]`: tries each kind of fault with other servers and relays and with zerosend, and prints two
 * tables in Markdown. Needs root, /dev/fuse, nginx with its stream module, and haproxy.
 */
import { parseArgs } from 'node:util';

import { FILE_KINDS, type Kind, type Start } from './file-kinds.js';
import { RELAY_KINDS, type StartRelay } from './relay-kinds.js';
import { FILE_SERVERS, fileServer, RELAYS, relay } from './servers.js';

const { values } = parseArgs({ options: { only: { type: 'string' } } });
const only = values.only?.split(',').map(Number);

let number = 0;

async function table<S>(
  first: string,
  kinds: readonly Kind<S>[],
  columns: readonly { name: string; start: S }[],
): Promise<void> {
  console.log(`\n| # | ${first} | ${columns.map(({ name }) => name).join(' | ')} |`);
  console.log(`|---|---|${columns.map(() => '---|').join('')}`);
  for (const kind of kinds) {
    number += 1;
    if (only !== undefined && !only.includes(number)) continue;
    const cells: string[] = [];
    for (const { start } of columns) {
      cells.push(await kind.try(start).catch((error: Error) => `failed to run: ${error.message.split('\n')[0]}`));
    }
    console.log(`| ${number} | ${kind.title} | ${cells.join(' | ')} |`);
  }
}

await table<Start>(
  'files',
  FILE_KINDS,
  FILE_SERVERS.map((name) => ({ name, start: (root, limits) => fileServer(name, root, limits) })),
);
await table<StartRelay>(
  'relays',
  RELAY_KINDS,
  RELAYS.map((name) => ({ name, start: (target, limits) => relay(name, target, limits) })),
);
process.exit(0);
