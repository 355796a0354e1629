/** `zerosend probe`: tests which features this kernel supports. */
import { type NetworkInterface, type Probe, probe as probeKernel } from '../api/probe.js';
import { bytes, table } from './terminal.js';
import { parse } from './usage.js';

const HELP = `usage: zerosend probe [options]

Tests the kernel features that zerosend and other zero-copy programs use, with a temporary
file and sockets on the loopback interface.

      --json   print one JSON object
  -h, --help   print this help

examples:
  zerosend probe
  zerosend probe --json | jq '.mechanisms[] | select(.available | not)'`;

export async function probe(args: string[]): Promise<void> {
  const { values } = parse({ args, options: { json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } } });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const found = await probeKernel();
  console.log(values.json ? JSON.stringify(found, null, 2) : show(found));
}

function show({ kernel, machine, pageSize, pipes, mechanisms, interfaces }: Probe): string {
  const limit = (pages: number) => (pages === 0 ? 'no limit' : bytes(pages * pageSize));
  const facts = table([
    ['kernel', `Linux ${kernel}, ${machine}, ${bytes(pageSize)} pages`],
    ['pipes', `default ${bytes(pipes.defaultSize)}, maximum ${bytes(pipes.maxSize)} for unprivileged users`],
    ['', `per user: ${limit(pipes.userPagesSoft)} (soft limit), ${limit(pipes.userPagesHard)} (hard limit)`],
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
  const summary =
    missing.length === 0
      ? 'All features that zerosend uses are available.'
      : `zerosend uses fallbacks for ${missing.map((one) => one.name).join(', ')}.`;
  return [facts, table(rows), table([head, ...cards]), summary].join('\n\n');
}
