/** `zerosend probe`: what this kernel can do. */
import { probe as ask, type NetworkInterface, type Probe } from '../api/probe.js';
import { bytes, table } from './terminal.js';
import { parse } from './usage.js';

const HELP = `usage: zerosend probe [options]

Tries what zerosend, and other zero-copy programs, want of the kernel: on a scratch file
and on sockets of the loopback. Nothing is left behind.

      --json   as one JSON object
  -h, --help

examples:
  zerosend probe
  zerosend probe --json | jq '.mechanisms[] | select(.available | not)'`;

export async function probe(args: string[]): Promise<void> {
  const { values } = parse({ args, options: { json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } } });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const found = await ask();
  console.log(values.json ? JSON.stringify(found, null, 2) : show(found));
}

function show({ kernel, machine, pageSize, pipes, mechanisms, interfaces }: Probe): string {
  const limit = (pages: number) => (pages === 0 ? 'no limit' : bytes(pages * pageSize));
  const facts = table([
    ['kernel', `Linux ${kernel}, ${machine}, pages of ${bytes(pageSize)}`],
    ['pipes', `${bytes(pipes.defaultSize)}, at most ${bytes(pipes.maxSize)} for unprivileged users`],
    [
      '',
      `all of one user: ${limit(pipes.userPagesSoft)} until new ones are small, ${limit(pipes.userPagesHard)} in all`,
    ],
  ]);
  const rows = mechanisms.map((one) => [
    one.available ? '✓' : '✗',
    one.name,
    one.available ? `since ${one.since}` : `${one.syscall}: ${one.code}`,
    one.available || one.without === undefined ? one.purpose : `without it: ${one.without}`,
  ]);
  const yes = (value: boolean | undefined) => (value === undefined ? '?' : value ? 'yes' : 'no');
  const head = ['interface', '', 'scatter-gather', 'checksum out', 'checksum in', 'segmentation'];
  const cards = interfaces.map((one: NetworkInterface) => [
    one.name,
    one.up ? 'up' : 'down',
    ...[one.scatterGather, one.transmitChecksum, one.receiveChecksum, one.segmentation].map(yes),
  ]);
  const missing = mechanisms.filter((one) => !one.available && one.without !== undefined);
  const sum =
    missing.length === 0
      ? 'Everything that zerosend uses works here.'
      : `zerosend does without ${missing.map((one) => one.name).join(', ')} here.`;
  return [facts, table(rows), table([head, ...cards]), sum].join('\n\n');
}
