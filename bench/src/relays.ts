// The relays of the comparison, each in a separate process on one core, in front of the same backend.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseStat } from './cpu.ts';

export interface Relay {
  port: number;
  /** CPU seconds of the process and its children, including those that have exited. */
  cpu(): number;
  /** Resident bytes. */
  memory(): number;
  stop(): Promise<void>;
}

type Command = (port: number, target: number, directory: string) => string[];

const SERVE = fileURLToPath(new URL('../serve-relay.ts', import.meta.url));
const node = (variant: string): Command => {
  return (port, target) => [
    process.execPath,
    '--import',
    import.meta.resolve('tsx'),
    SERVE,
    variant,
    `${port}`,
    `${target}`,
  ];
};

export const RELAYS: Record<string, Command> = {
  zerosend: node('auto'),
  'zerosend splice': node('splice'),
  'zerosend splice 64 KiB': node('splice-64'),
  'zerosend read-write': node('read-write'),
  haproxy: (port, target, directory) => haproxy(port, target, directory, ''),
  'haproxy splice': (port, target, directory) => {
    return haproxy(port, target, directory, 'option splice-request\n  option splice-response');
  },
  'nginx 16 KiB': (port, target, directory) => nginx(port, target, directory, '16k'),
  'nginx 256 KiB': (port, target, directory) => nginx(port, target, directory, '256k'),
  socat: (port, target) => [
    'socat',
    '-b',
    '262144',
    `TCP-LISTEN:${port},bind=127.0.0.1,reuseaddr,fork,backlog=1024,nodelay`,
    `TCP:127.0.0.1:${target},nodelay`,
  ],
  'node pipe': node('pipe'),
};

function haproxy(port: number, target: number, directory: string, options: string): string[] {
  const file = join(directory, 'haproxy.cfg');
  writeFileSync(
    file,
    `global
  nbthread 1
  maxconn 9600
  maxpipes 256
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  ${options}
listen relay
  bind 127.0.0.1:${port}
  server backend 127.0.0.1:${target}
`,
  );
  return ['haproxy', '-db', '-q', '-f', file];
}

function nginx(port: number, target: number, directory: string, buffer: string): string[] {
  const file = join(directory, 'nginx.conf');
  writeFileSync(
    file,
    `load_module modules/ngx_stream_module.so;
    ${process.getuid?.() === 0 ? 'user root;' : ''} daemon off; master_process off; pid ${directory}/pid; error_log stderr;
    events { worker_connections 30000; }
    stream {
      server {
        listen 127.0.0.1:${port} backlog=4096; proxy_pass 127.0.0.1:${target}; proxy_buffer_size ${buffer};
        proxy_timeout 1h; proxy_half_close on;
      }
    }`,
  );
  return ['nginx', '-p', '/usr/share/nginx', '-c', file];
}

export async function startRelay(variant: string, target: number, core: number): Promise<Relay> {
  const directory = mkdtempSync(join(tmpdir(), 'zerosend-bench-relay-'));
  const port = await freePort();
  const command = RELAYS[variant]!(port, target, directory);
  const child = spawn('taskset', ['-c', String(core), ...command], { stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-2000);
  });
  const closed = new Promise<void>((resolve) => child.on('close', () => resolve()));
  const stop = async () => {
    child.kill('SIGTERM');
    const killTimer = setTimeout(() => child.kill('SIGKILL'), 2000);
    await closed;
    clearTimeout(killTimer);
    rmSync(directory, { recursive: true, force: true });
  };
  for (let tries = 0; !(await answers(port)); tries++) {
    if (tries === 200 || child.exitCode !== null) {
      await stop();
      throw new Error(`"${variant}" does not listen: ${stderr}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { port, cpu: () => cpuOf(child), memory: () => memoryOf(child), stop };
}

function cpuOf({ pid }: ChildProcess): number {
  const fields = (of: number) => readFileSync(`/proc/${of}/stat`, 'latin1');
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean);
  const stat = fields(pid!);
  // Fields 16 and 17: CPU time of the children that were waited for.
  const waited = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ended = (Number(waited[13]) + Number(waited[14])) / 100;
  const running = children.map((child) => {
    try {
      return parseStat(fields(Number(child)));
    } catch {
      // The child has exited.
      return 0;
    }
  });
  return running.reduce((sum, seconds) => sum + seconds, parseStat(stat) + ended);
}

function memoryOf({ pid }: ChildProcess): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) * 1024;
}

export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
