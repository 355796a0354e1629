/** The compared file servers and relays, each in a separate process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const NODE_PEER = fileURLToPath(new URL('node-peer.ts', import.meta.url));

export const FILE_SERVERS = [
  '@fastify/static',
  'express.static',
  'nginx',
  'zerosend plugin',
  'zerosend server',
] as const;
export type FileServerName = (typeof FILE_SERVERS)[number];
export const RELAYS = ['nginx', 'HAProxy', 'zerosend proxy'] as const;
export type RelayName = (typeof RELAYS)[number];

export interface Peer {
  port: number;
  /** The process that owns the connections. */
  pid: number;
  process: ChildProcess;
  /** Its standard error. */
  output(): string;
  /** Shuts it down gracefully, by a signal. */
  quit(): Promise<void>;
  stop(): Promise<void>;
}

export interface Limits {
  /** Maximum number of descriptors. */
  files?: number;
  /** A Unix socket to listen on instead of a port; for file servers. */
  socket?: string;
  /** A file to mount over /etc/hosts, for this process only. */
  hosts?: string;
}

/** A relay's target: a port of 127.0.0.1, `localhost:<port>`, the path of a Unix socket, or several ports. */
export type Target = number | string | readonly number[];

const address = (one: number | string, unix: string) =>
  typeof one === 'number' ? `127.0.0.1:${one}` : one.startsWith('/') ? `${unix}${one}` : one;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

function start(
  command: string,
  args: string[],
  { files, hosts }: Limits,
): { child: ChildProcess; output: () => string } {
  const limits = files === undefined ? [] : ['prlimit', `--nofile=${files}:${files}`];
  const namespace =
    hosts === undefined
      ? []
      : ['unshare', '--mount', 'sh', '-c', `mount --bind ${hosts} /etc/hosts && exec "$@"`, 'sh'];
  const limited = [...namespace, ...limits, command, ...args];
  const child = spawn(limited[0] as string, limited.slice(1), { stdio: ['pipe', 'pipe', 'pipe'] });
  let output = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stdin?.on('error', () => {});
  return { child, output: () => output };
}

async function untilListening(port: number | string, output: () => string): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    const socket = typeof port === 'number' ? connect(port, '127.0.0.1') : connect(port);
    const open = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'error').then(() => false),
    ]).catch(() => false);
    socket.destroy();
    if (open) return;
    await sleep(25);
  }
  throw new Error(`does not listen: ${output()}`);
}

function peer(
  child: ChildProcess,
  pid: number,
  port: number,
  output: () => string,
  signal: NodeJS.Signals,
  clean = () => {},
): Peer {
  const exited = once(child, 'exit');
  return {
    port,
    pid,
    process: child,
    output,
    quit: async () => {
      child.kill(signal);
      await Promise.race([exited, sleep(20_000)]);
    },
    stop: async () => {
      child.kill('SIGKILL');
      try {
        // A dedicated worker.
        if (pid !== child.pid) process.kill(pid, 'SIGKILL');
      } catch {
        // The process has ended.
      }
      await exited;
      clean();
    },
  };
}

async function node(kind: string, argument: string, limits: Limits): Promise<Peer> {
  const { child, output } = start(
    process.execPath,
    ['--import', import.meta.resolve('tsx'), NODE_PEER, kind, argument, limits.socket ?? ''],
    limits,
  );
  const [line] = (await Promise.race([
    once(child.stdout!, 'data'),
    once(child, 'exit').then(() => {
      throw new Error(`${kind} exited: ${output()}`);
    }),
  ])) as [Buffer];
  child.stdout?.resume();
  return peer(child, child.pid as number, Number(line.toString()), output, 'SIGTERM');
}

/** One process without a master, so that limits and descriptors are those of the worker. */
async function nginx(
  configuration: (port: number, directory: string) => string,
  limits: Limits,
  modules = '',
): Promise<Peer> {
  const directory = mkdtempSync(join(tmpdir(), 'zerosend-nginx-'));
  const port = await freePort();
  const file = join(directory, 'nginx.conf');
  writeFileSync(
    file,
    `${modules} daemon off; master_process off; user root; pid ${directory}/pid; error_log ${directory}/error.log;
     events { worker_connections ${limits.files === undefined ? 1024 : limits.files}; }
     ${configuration(port, directory)}`,
  );
  const { child, output } = start('nginx', ['-p', directory, '-c', file], limits);
  await untilListening(limits.socket ?? port, output);
  return peer(child, child.pid as number, port, output, 'SIGQUIT', () =>
    rmSync(directory, { recursive: true, force: true }),
  );
}

export async function fileServer(name: FileServerName, root: string, limits: Limits = {}): Promise<Peer> {
  if (name !== 'nginx') return await node(name, root, limits);
  return await nginx(
    (port, directory) => `http {
      access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
      client_body_temp_path ${directory}/a; proxy_temp_path ${directory}/b; fastcgi_temp_path ${directory}/c;
      uwsgi_temp_path ${directory}/d; scgi_temp_path ${directory}/e;
      server { listen ${limits.socket === undefined ? `127.0.0.1:${port}` : `unix:${limits.socket}`}; root ${root}; } }`,
    limits,
  );
}

export async function relay(name: RelayName, target: Target, limits: Limits = {}): Promise<Peer> {
  const list = Array.isArray(target) ? (target as number[]) : [target as number | string];
  if (name === 'zerosend proxy') return await node(name, JSON.stringify(target), limits);
  if (name === 'nginx') {
    const servers = list.map((one) => `server ${address(one, 'unix:')};`);
    return await nginx(
      (port) =>
        `stream { upstream target { ${servers.join(' ')} } server { listen 127.0.0.1:${port}; proxy_pass target; proxy_half_close on; } }`,
      limits,
      'load_module /usr/lib/nginx/modules/ngx_stream_module.so;',
    );
  }
  const directory = mkdtempSync(join(tmpdir(), 'zerosend-haproxy-'));
  const port = await freePort();
  const servers = list.map((one, at) => `server s${at} ${address(one, 'unix@')}`);
  writeFileSync(
    join(directory, 'haproxy.cfg'),
    `global
  maxconn ${limits.files === undefined ? 2000 : Math.floor(limits.files / 2) - 10}
defaults
  mode tcp
  option redispatch
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen main
  bind 127.0.0.1:${port}
  balance roundrobin
${servers.map((server) => `  ${server}\n`).join('')}`,
  );
  const { child, output } = start('haproxy', ['-db', '-f', join(directory, 'haproxy.cfg')], limits);
  await untilListening(port, output);
  return peer(child, child.pid as number, port, output, 'SIGUSR1', () =>
    rmSync(directory, { recursive: true, force: true }),
  );
}
