/** `zerosend proxy`: connections from here to there. */
import { createProxy, type ProxyMirror, type ProxyOptions, type Relay } from '../api/proxy.js';
import { readAddress } from '../util/address.js';
import { onHangUp } from './signals.js';
import { integer, parse, permissions, UsageError, word } from './usage.js';

const HELP = `usage: zerosend proxy --listen <address> --to <address>[,<address>...] [options]

  -l, --listen <address>      where to listen: port, host:port or unix:/path
      --socket-mode <octal>   permissions of a Unix socket's file (default: by the umask)
  -t, --to <address,...>      where connections go to; of several, each in turn
      --balance <how>         round-robin or least-connections (default round-robin)
      --connect-timeout <ms>  for a connection to a target (default 5000)
      --idle-timeout <ms>     without a byte in either direction (default 0: none)
      --keep-alive <ms>       silence after which a peer is probed (default 60000, 0: never)
      --resolve-interval <ms> names of targets are looked up again (default 30000, 0: never)
      --retries <n>           further targets to try (default 2)
      --proxy-protocol <v>    v1 or v2: tell targets the client's address first
      --mirror <where>        a copy of what clients send: a file or FIFO, a name with {n}, {time},
                              {client} or {id} (one file for each connection), or
                              tcp:<address>; may be given several times
      --mirror-policy <p>     block or drop: what becomes of copies that are not taken in
                              time (default drop)
      --mirror-mode <octal>   permissions of files that are made (default 600)
      --method <name>         splice or read-write (default auto)
      --pipe-size <bytes>     of a pipe (default 262144)
      --workers <n>           threads (default: one for each core)
  -h, --help

SIGHUP opens the files of mirrors by their names again, after they were renamed.

examples:
  zerosend proxy --listen 8080 --to 127.0.0.1:3000
  zerosend proxy -l [::]:5432 -t db1:5432,db2:5432 --balance least-connections
  zerosend proxy -l unix:/run/app.sock -t 127.0.0.1:3000
  zerosend proxy -l 8080 -t 127.0.0.1:3000 --mirror 'audit-{n}.log' --mirror tcp:staging:3000`;

export async function proxy(args: string[]): Promise<void> {
  const { values } = parse({
    args,
    options: {
      listen: { type: 'string', short: 'l' },
      to: { type: 'string', short: 't' },
      'socket-mode': { type: 'string' },
      balance: { type: 'string' },
      'connect-timeout': { type: 'string' },
      'idle-timeout': { type: 'string' },
      'keep-alive': { type: 'string' },
      'resolve-interval': { type: 'string' },
      retries: { type: 'string' },
      'proxy-protocol': { type: 'string' },
      mirror: { type: 'string', multiple: true },
      'mirror-policy': { type: 'string' },
      'mirror-mode': { type: 'string' },
      method: { type: 'string' },
      'pipe-size': { type: 'string' },
      workers: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  if (values.listen === undefined) throw new UsageError('--listen is missing: a port, host:port or unix:/path');
  if (values.to === undefined) throw new UsageError('--to is missing: host:port, or several with commas between');
  const most = 2 ** 31;
  const policy = word('--mirror-policy', values['mirror-policy'], ['block', 'drop']);
  const mode = permissions('--mirror-mode', values['mirror-mode']);
  const mirror = (values.mirror ?? []).map((one): ProxyMirror => {
    if (one.startsWith('tcp:')) return { connect: address('--mirror', one.slice(4)), policy };
    return one.startsWith('unix:') ? { connect: address('--mirror', one), policy } : { file: one, policy, mode };
  });
  const options: ProxyOptions = {
    listen: address('--listen', values.listen),
    target: values.to.split(',').map((one) => address('--to', one)),
    socketMode: permissions('--socket-mode', values['socket-mode']),
    balance: word('--balance', values.balance, ['round-robin', 'least-connections']),
    connectTimeout: integer('--connect-timeout', values['connect-timeout'], 0, most),
    idleTimeout: integer('--idle-timeout', values['idle-timeout'], 0, most),
    keepAlive: integer('--keep-alive', values['keep-alive'], 0, most),
    resolveInterval: integer('--resolve-interval', values['resolve-interval'], 0, most - 1),
    retries: integer('--retries', values.retries, 0, 1000),
    proxyProtocol: word('--proxy-protocol', values['proxy-protocol'], ['v1', 'v2']),
    mirror,
    method: word('--method', values.method, ['auto', 'splice', 'read-write']),
    pipeSize: integer('--pipe-size', values['pipe-size'], 4096, 2 ** 30),
    workers: integer('--workers', values.workers, 1, 1024),
  };
  const relay = await createProxy(options);
  if (mirror.some((one) => 'file' in one)) onHangUp(() => relay.reopen());
  let asked = 0;
  const stop = () => {
    asked += 1;
    void relay.close({ drain: asked > 1 ? 0 : 10_000 });
  };
  process.on('SIGINT', stop).on('SIGTERM', stop);
  // Afterwards, so that a program that waits for this line can signal the process.
  console.log(`listening on ${show(relay)}, to ${values.to}`);
}

function address(flag: string, text: string): string {
  try {
    readAddress(flag, text);
  } catch {
    throw new UsageError(`invalid ${flag} '${text}': use a port, host:port or unix:/path`);
  }
  return text;
}

function show({ address: bound }: Relay): string {
  if ('path' in bound) return `unix:${bound.path.replace(/^\0/, '@')}`;
  return bound.host.includes(':') ? `[${bound.host}]:${bound.port}` : `${bound.host}:${bound.port}`;
}
