/** Processes that are stopped, closed, or short of resources: one case after another, each with its processes. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { PACKAGE_ROOT } from '../../../lib/util/package.js';
import { Child } from '../child.js';
import type { Random } from '../random.js';
import { make, verify } from '../records.js';
import type { Report } from '../report.js';
import type { Area } from '../run.js';
import type { World } from '../world.js';

const TIMEOUT_MS = 40_000;

/** A connection, and the bytes received until its end. */
interface Client {
  socket: Socket;
  received: Buffer;
  ended: 'end' | 'reset' | undefined;
}

async function dial(to: { port: number } | { path: string }, text: string): Promise<Client> {
  const socket = connect('port' in to ? { ...to, host: '127.0.0.1' } : to);
  const client: Client = { socket, received: Buffer.alloc(0), ended: undefined };
  socket.on('data', (chunk: Buffer) => {
    client.received = Buffer.concat([client.received, chunk]);
  });
  socket.on('end', () => {
    client.ended ??= 'end';
  });
  socket.on('error', () => {
    client.ended ??= 'reset';
  });
  socket.on('close', () => {
    client.ended ??= 'reset';
  });
  await Promise.race([once(socket, 'connect'), once(socket, 'close')]).catch(() => {});
  socket.write(text);
  return client;
}

async function until(condition: () => boolean, ms = TIMEOUT_MS): Promise<boolean> {
  const end = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > end) return false;
    await sleep(10);
  }
  return true;
}

export class LifecycleArea implements Area {
  readonly #world: World;
  readonly #report: Report;
  readonly #random: Random;
  readonly #directory: string;
  #last = 0;

  constructor(world: World, report: Report, random: Random) {
    this.#world = world;
    this.#report = report;
    this.#random = random;
    this.#directory = join(world.directory, `lifecycle-${random.int(0, 1e9)}`);
  }

  async start(): Promise<void> {
    mkdirSync(this.#directory);
  }

  async round(signal: AbortSignal): Promise<void> {
    const cases: Record<string, (random: Random) => Promise<void>> = {
      'closed with a backlog': (random) => this.#backlog(random),
      'few descriptors, server': () => this.#fewForServer(),
      'few descriptors, proxy': () => this.#fewForProxy(),
      'log that is not read': (random) => this.#unreadLog(random),
      'mirror that is a FIFO': () => this.#fifo(),
      'Unix target with a full backlog': () => this.#unixBacklog(),
    };
    const names = Object.keys(cases);
    while (!signal.aborted) {
      const name = this.#random.pick(names);
      try {
        await cases[name]?.(this.#random.fork());
        this.#report.count('lifecycle', name);
      } catch (error) {
        this.#fault(`fails: ${name}`, (error as Error).message);
      }
      await sleep(this.#random.int(0, 500));
    }
  }

  #fault(what: string, detail: string): void {
    this.#report.fault('lifecycle', what, detail);
  }

  async #server(files?: number): Promise<{ child: Child; port: number }> {
    const child = Child.start(this.#report, 'lifecycle server', 'serve', files);
    const sites = [{ name: 'main', root: this.#world.root, options: {} }];
    const ports = await child.call<Record<string, number>>('start', { kind: 'server', sites });
    return { child, port: ports.main as number };
  }

  readonly #get = () => `GET /main/${this.#world.canary.url} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`;

  #isWhole({ received }: Client): boolean {
    const end = received.indexOf('\r\n\r\n');
    const body = received.subarray(end + 4);
    return end > 0 && body.length === this.#world.canary.size && verify(body, this.#world.canary.id).bad === undefined;
  }

  /** Clients that are connected when the server is closed are served. */
  async #backlog(random: Random): Promise<void> {
    const { child, port } = await this.#server();
    child.process.kill('SIGSTOP');
    const clients = await Promise.all(Array.from({ length: random.int(1, 200) }, () => dial({ port }, this.#get())));
    const ended = child.end();
    child.process.kill('SIGCONT');
    await ended;
    await until(() => clients.every((client) => client.ended !== undefined));
    const served = clients.filter((client) => this.#isWhole(client)).length;
    if (served < clients.length)
      this.#fault('connections of the backlog are lost', `${served} of ${clients.length} served`);
    for (const { socket } of clients) socket.destroy();
  }

  /** More clients than descriptors: all are served, one after another. */
  async #fewForServer(): Promise<void> {
    const { child, port } = await this.#server(64);
    const clients = await Promise.all(Array.from({ length: 100 }, () => dial({ port }, this.#get())));
    if (!(await until(() => clients.every((client) => client.ended !== undefined)))) {
      this.#fault('hangs without descriptors', `${clients.filter(({ ended }) => ended === undefined).length} of 100`);
    }
    const served = clients.filter((client) => this.#isWhole(client)).length;
    // Without a descriptor for the file, the response is 503 or 500; the connection is not lost.
    const answered = clients.filter(({ received }) => received.length > 0).length;
    this.#report.count('lifecycle', 'served with few descriptors', served);
    if (answered < clients.length) this.#fault('connections are lost without descriptors', `${answered} of 100 served`);
    for (const { socket } of clients) socket.destroy();
    await child.end();
  }

  async #echo(path?: string): Promise<{ port: number; close: () => void }> {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => sockets.delete(socket));
      socket.pipe(socket);
    });
    if (path === undefined) server.listen(0, '127.0.0.1');
    else server.listen(path);
    await once(server, 'listening');
    const address = server.address();
    return {
      port: typeof address === 'object' && address !== null ? address.port : 0,
      close: () => {
        server.close();
        for (const socket of sockets) socket.destroy();
      },
    };
  }

  async #fewForProxy(): Promise<void> {
    const echo = await this.#echo();
    const child = Child.start(this.#report, 'lifecycle proxy', 'proxy', 64);
    const target = { host: '127.0.0.1', port: echo.port };
    const { few } = await child.call<{ few: number }>('start', { few: { target, method: 'splice', workers: 1 } });
    const bytes = make(1, 1, 1600);
    const clients = await Promise.all(Array.from({ length: 100 }, () => dial({ port: few }, bytes.toString('latin1'))));
    await sleep(500);
    const lost = clients.filter(({ ended }) => ended !== undefined).length;
    if (lost > 0) this.#fault('connections are reset without descriptors', `${lost} of 100`);
    // When clients have been served and disconnect, the next ones are served.
    const served = () => clients.filter(({ received }) => received.length >= bytes.length);
    const all = await until(() => {
      for (const { socket } of served()) socket.destroy();
      return served().length === clients.length;
    });
    if (!all) this.#fault('connections are never served', `${served().length} of 100`);
    for (const { socket } of clients) socket.destroy();
    await child.end();
    echo.close();
  }

  async #unixBacklog(): Promise<void> {
    const path = join(this.#directory, `target-${++this.#last}`);
    // The stopped process accepts nothing, so the backlog is full until it continues.
    const script = `
      const server = require('node:net').createServer((socket) => socket.on('error', () => {}).pipe(socket));
      server.listen({ path: process.argv[1], backlog: 4 }, () => console.log('listening'));`;
    const target = spawn(process.execPath, ['-e', script, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(target.stdout, 'data');
    const child = Child.start(this.#report, 'lifecycle proxy', 'proxy');
    const { unix } = await child.call<{ unix: number }>('start', { unix: { target: { path }, workers: 2 } });
    target.kill('SIGSTOP');
    const clients = await Promise.all(Array.from({ length: 60 }, () => dial({ port: unix }, 'hello')));
    await sleep(300);
    target.kill('SIGCONT');
    await until(() => clients.every(({ received, ended }) => received.length >= 5 || ended !== undefined));
    const served = clients.filter(({ received }) => received.toString() === 'hello').length;
    if (served < clients.length)
      this.#fault('clients of a full backlog are reset', `${served} of ${clients.length} served`);
    for (const { socket } of clients) socket.destroy();
    await child.end();
    target.kill('SIGKILL');
    rmSync(path, { force: true });
  }

  /** A full pipe of the access log must not stop the server from serving or closing. */
  async #unreadLog(random: Random): Promise<void> {
    const root = process.env.ZEROSEND_UNDER_TEST ?? PACKAGE_ROOT;
    const main = join(root, 'dist/lib/cli/main.js');
    const args = [main, 'serve', this.#world.root, '--port', '0', '--log', 'combined'];
    const server = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let port = 0;
    let output = '';
    const onLine = (chunk: Buffer) => {
      output += chunk.toString();
      port ||= Number(/http:\/\/[^\s:]+:(\d+)/.exec(output)?.[1] ?? 0);
    };
    server.stderr.on('data', onLine);
    server.stdout.on('data', onLine);
    if (!(await until(() => port !== 0, 20_000))) {
      server.kill('SIGKILL');
      throw new Error(`zerosend serve did not print its port: ${output}`);
    }
    server.stdout.pause().removeAllListeners('data');
    const file = `GET /${this.#world.canary.url} HTTP/1.1\r\nHost: h\r\n`;
    const requests = `${`${file}\r\n`.repeat(199)}${file}Connection: close\r\n\r\n`;
    const clients = await Promise.all(Array.from({ length: 10 }, () => dial({ port }, requests)));
    if (!(await until(() => clients.every(({ ended }) => ended !== undefined))))
      this.#fault('an unread log stops the server', output);
    for (const { socket } of clients) socket.destroy();
    const exited = once(server, 'exit');
    server.kill(random.pick(['SIGTERM', 'SIGINT'] as const));
    const timely = await Promise.race([exited.then(() => true), sleep(25_000, false)]);
    if (!timely) this.#fault('an unread log stops the server from exiting', 'still running 25 s after the signal');
    server.kill('SIGKILL');
  }

  /** It is refused at once, and nothing is blocked. */
  async #fifo(): Promise<void> {
    const path = join(this.#directory, `fifo-${++this.#last}`);
    spawnSync('mkfifo', [path]);
    const child = Child.start(this.#report, 'lifecycle proxy', 'proxy');
    const begun = performance.now();
    const started = child.call('start', { fifo: { target: 1, mirror: [{ file: path }] } }, 15_000);
    const result = await started.then(
      () => 'accepted',
      (error: Error) => error.message.split('\n')[0],
    );
    this.#report.count('lifecycle', `FIFO: ${result}`);
    if (performance.now() - begun > 10_000) {
      this.#fault('a FIFO blocks the JavaScript thread', `${(performance.now() - begun).toFixed()} ms: ${result}`);
      await child.kill();
    } else await child.end();
    rmSync(path);
  }

  async check(): Promise<void> {}

  async end(): Promise<void> {
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
