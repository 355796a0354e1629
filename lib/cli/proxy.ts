/** `zerosend proxy`: relays connections to other servers. */
import { createProxy, type ProxyMirror, type ProxyOptions, type Relay } from '../api/proxy.js';
import { readAddress } from '../util/address.js';
import { onHangUp } from './signals.js';
import { integer, parse, permissions, UsageError, word } from './usage.js';

const HELP = `usage: zerosend proxy --listen <address> --to <address>[,<address>...] [options]

  -l, --listen <address>      address to listen on: port, host:port or unix:/path
      --socket-mode <octal>   permissions of the Unix socket (default: set by the umask)
  -t, --to <address,...>      addresses of the target servers
      --balance <policy>      round-robin or least-connections (default round-robin)
      --connect-timeout <ms>  timeout for connecting to a target (default 5000)
      --idle-timeout <ms>     close connections that are idle in both directions for this
                              long (default 0: never)
      --keep-alive <ms>       idle time before TCP keep-alive probes are sent
                              (default 60000; 0: never)
      --resolve-interval <ms> interval of looking up the host names of targets
                              (default 30000; 0: never again)
      --retries <n>           number of other targets to try (default 2)
      --proxy-protocol <v>    send the PROXY protocol header, v1 or v2, to targets
      --mirror <destination>  send a copy of the client's data to a file, a FIFO or
                              tcp:<address>; a file name with {n}, {time}, {client} or {id}
                              makes one file for each connection; may be repeated
      --mirror-policy <p>     if a mirror is slow: block the connection, or drop data of the
                              mirror (default drop)
      --mirror-mode <octal>   permissions of new mirror files (default 600)
      --method <name>         auto, splice or read-write (default auto)
      --pipe-size <bytes>     capacity of each pipe (default 262144)
      --workers <n>           number of threads (default: one per core)
  -h, --help                  print this help

On SIGHUP, mirror files are reopened, for log rotation.

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
  if (values.listen === undefined) throw new UsageError('missing --listen: use a port, host:port or unix:/path');
  if (values.to === undefined) throw new UsageError('missing --to: use host:port, or several separated by commas');
  const max = 2 ** 31;
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
    connectTimeout: integer('--connect-timeout', values['connect-timeout'], 0, max),
    idleTimeout: integer('--idle-timeout', values['idle-timeout'], 0, max),
    keepAlive: integer('--keep-alive', values['keep-alive'], 0, max),
    resolveInterval: integer('--resolve-interval', values['resolve-interval'], 0, max - 1),
    retries: integer('--retries', values.retries, 0, 1000),
    proxyProtocol: word('--proxy-protocol', values['proxy-protocol'], ['v1', 'v2']),
    mirror,
    method: word('--method', values.method, ['auto', 'splice', 'read-write']),
    pipeSize: integer('--pipe-size', values['pipe-size'], 4096, 2 ** 30),
    workers: integer('--workers', values.workers, 1, 1024),
  };
  const relay = await createProxy(options);
  if (mirror.some((one) => 'file' in one)) onHangUp(() => relay.reopen());
  let signals = 0;
  const stop = () => {
    signals += 1;
    void relay.close({ drain: signals > 1 ? 0 : 10_000 });
  };
  process.on('SIGINT', stop).on('SIGTERM', stop);
  // After the signal handlers are installed: a program may send a signal as soon as it has read this line.
  console.log(`listening on ${show(relay)}, relaying to ${values.to}`);
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
