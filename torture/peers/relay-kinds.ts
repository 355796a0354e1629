/** The faults tried with relays. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { watchEnd } from '../src/actors/streams.js';
import { dial, sleep, until } from './client.js';
import type { Kind } from './file-kinds.js';
import type { Limits, Peer, Target } from './servers.js';

export type StartRelay = (target: Target, limits?: Limits) => Promise<Peer>;

async function withTarget<T>(serve: (socket: Socket) => void, act: (port: number) => Promise<T>): Promise<T> {
  const sockets = new Set<Socket>();
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    serve(socket);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    return await act((server.address() as AddressInfo).port);
  } finally {
    server.close();
    for (const socket of sockets) socket.destroy();
  }
}

async function withRelay<T>(
  start: StartRelay,
  target: Target,
  act: (peer: Peer) => Promise<T>,
  limits?: Limits,
): Promise<T> {
  const peer = await start(target, limits);
  try {
    return await act(peer);
  } finally {
    await peer.stop();
  }
}

const echo = (socket: Socket) => void socket.pipe(socket);

export const RELAY_KINDS: readonly Kind<StartRelay>[] = [
  {
    title: 'The target reads 100 bytes, responds, and closes with 2,900 bytes unread: responses received',
    try: (start) =>
      withTarget(
        (socket) => {
          socket.once('readable', () => {
            socket.read(100);
            // Unread bytes have arrived, so closing sends a reset.
            setTimeout(() => socket.write('answer', () => socket.destroy()), 20);
          });
        },
        (target) =>
          withRelay(start, target, async ({ port }) => {
            let answered = 0;
            for (let times = 0; times < 100; times++) {
              const client = await dial(port, Buffer.alloc(3000));
              await until(() => client.ended !== undefined, 3000);
              if (client.received.toString() === 'answer') answered += 1;
              client.socket.destroy();
            }
            return `${answered} of 100`;
          }),
      ),
  },
  {
    title: 'The target sends 500 kB and resets: result at the client',
    try: (start) =>
      withTarget(
        (socket) => {
          socket.write(Buffer.alloc(500_000), () => setTimeout(() => socket.resetAndDestroy(), 50));
        },
        (target) =>
          withRelay(start, target, async ({ port }) => {
            const seen = { end: 0, reset: 0 };
            for (let times = 0; times < 20; times++) {
              const client = await dial(port);
              const stateOf = watchEnd(client.socket);
              let state: string | undefined;
              client.socket.on('end', () => {
                state = stateOf();
              });
              await until(() => client.ended !== undefined, 3000);
              if (client.ended === 'end' && state !== undefined) seen.end += 1;
              else seen.reset += 1;
              client.socket.destroy();
            }
            return seen.end === 0 ? 'a reset' : seen.reset === 0 ? 'a normal end' : `a normal end in ${seen.end} of 20`;
          }),
      ),
  },
  {
    title: 'The client half-closes after 1 MB, the target responds with as many bytes: complete responses',
    try: (start) =>
      withTarget(
        (socket) => {
          let count = 0;
          socket.on('data', (chunk: Buffer) => {
            count += chunk.length;
          });
          socket.on('end', () => socket.end(Buffer.alloc(count)));
        },
        (target) =>
          withRelay(start, target, async ({ port }) => {
            let whole = 0;
            for (let times = 0; times < 20; times++) {
              const client = await dial(port);
              client.socket.end(Buffer.alloc(1_000_000));
              await until(() => client.ended !== undefined, 5000);
              if (client.received.length === 1_000_000) whole += 1;
              client.socket.destroy();
            }
            return `${whole} of 20`;
          }),
      ),
  },
  {
    title: 'A Unix target whose backlog of 4 is full for 300 ms, 60 clients: served',
    try: async (start) => {
      const path = join(tmpdir(), `zerosend-peers-${process.pid}.sock`);
      const script = `
        const server = require('node:net').createServer((socket) => socket.on('error', () => {}).pipe(socket));
        server.listen({ path: process.argv[1], backlog: 4 }, () => console.log('listening'));`;
      const target = spawn(process.execPath, ['-e', script, path], { stdio: ['ignore', 'pipe', 'inherit'] });
      await once(target.stdout, 'data');
      try {
        return await withRelay(start, path, async ({ port }) => {
          target.kill('SIGSTOP');
          const clients = await Promise.all(Array.from({ length: 60 }, () => dial(port, 'hello')));
          await sleep(300);
          target.kill('SIGCONT');
          await until(
            () => clients.every(({ received, ended }) => received.length >= 5 || ended !== undefined),
            10_000,
          );
          const served = clients.filter(({ received }) => received.toString() === 'hello').length;
          for (const { socket } of clients) socket.destroy();
          return `${served} of 60`;
        });
      } finally {
        target.kill('SIGKILL');
        rmSync(path, { force: true });
      }
    },
  },
  {
    title: '`ulimit -n 64`, 100 clients, each disconnects when served: served',
    try: (start) =>
      withTarget(echo, (target) =>
        withRelay(
          start,
          target,
          async ({ port }) => {
            const clients = await Promise.all(Array.from({ length: 100 }, () => dial(port, 'hello')));
            const served = () => clients.filter(({ received }) => received.length >= 5);
            await until(() => {
              for (const { socket } of served()) socket.destroy();
              return clients.every(({ received, ended }) => received.length >= 5 || ended !== undefined);
            }, 15_000);
            for (const { socket } of clients) socket.destroy();
            return `${served().length} of 100`;
          },
          { files: 64 },
        ),
      ),
  },
  {
    title: 'Stopped (SIGSTOP), 100 clients connect, graceful shutdown signal, continued: served',
    try: (start) =>
      withTarget(
        (socket) => void socket.once('data', () => socket.end('answer')),
        (target) =>
          withRelay(start, target, async (peer) => {
            peer.process.kill('SIGSTOP');
            const clients = await Promise.all(Array.from({ length: 100 }, () => dial(peer.port, 'hello')));
            const ended = peer.quit();
            peer.process.kill('SIGCONT');
            await until(() => clients.every((client) => client.ended !== undefined), 10_000);
            const served = clients.filter(({ received }) => received.toString() === 'answer').length;
            for (const { socket } of clients) socket.destroy();
            await ended;
            return `${served} of 100`;
          }),
      ),
  },
  {
    title: 'Four targets in rotation, one of them down, 60 sequential connections: connections per target',
    try: async (start) => {
      const counts = [0, 0, 0];
      const one = (at: number) => (socket: Socket) => {
        counts[at] = (counts[at] ?? 0) + 1;
        socket.end('x');
      };
      return await withTarget(one(0), (a) =>
        withTarget(one(1), (b) =>
          withTarget(one(2), async (c) => {
            // A port without a listener.
            const dead = await withTarget(
              () => {},
              async (port) => port,
            );
            return await withRelay(start, [a, dead, b, c], async ({ port }) => {
              counts.fill(0);
              let failed = 0;
              for (let times = 0; times < 60; times++) {
                const client = await dial(port);
                await until(() => client.ended !== undefined, 10_000);
                if (client.received.length === 0) failed += 1;
                client.socket.destroy();
              }
              return `${counts.join(' / ')}${failed > 0 ? `, ${failed} failed` : ''}`;
            });
          }),
        ),
      );
    },
  },
  {
    title: '20 clients that read 2 MB slowly: slowest response to another client in 3 s',
    try: (start) =>
      withTarget(
        (socket) => {
          socket.once('data', (chunk: Buffer) =>
            socket.end(chunk.toString() === 'much' ? Buffer.alloc(2_000_000) : 'little'),
          );
        },
        (target) =>
          withRelay(start, target, async ({ port }) => {
            const slow = await Promise.all(Array.from({ length: 20 }, () => dial(port, 'much', false)));
            const end = performance.now() + 3000;
            let worst = 0;
            while (performance.now() < end) {
              const begun = performance.now();
              const client = await dial(port, 'ask');
              await until(() => client.ended !== undefined, 10_000);
              worst = Math.max(worst, performance.now() - begun);
              client.socket.destroy();
              for (const { socket } of slow) socket.read(65_536);
            }
            for (const { socket } of slow) socket.destroy();
            return worst < 100 ? 'under 0.1 s' : `${(worst / 1000).toFixed(1)} s`;
          }),
      ),
  },
  {
    title: 'The client sends `abc`, an urgent byte, and `def`: bytes at the target one second later',
    try: (start) => {
      let received = '';
      return withTarget(
        (socket) => {
          socket.on('data', (chunk: Buffer) => {
            received += chunk.toString();
          });
        },
        (target) =>
          withRelay(start, target, async ({ port }) => {
            // Node has no MSG_OOB.
            const script = `
import socket, time
s = socket.create_connection(('127.0.0.1', ${port}))
time.sleep(0.2)
s.send(b'abc'); time.sleep(0.1)
s.send(b'!', socket.MSG_OOB); time.sleep(0.1)
s.send(b'def'); time.sleep(1.5)`;
            const client = spawn('python3', ['-c', script], { stdio: ['ignore', 'ignore', 'inherit'] });
            await sleep(1600);
            const seen = received;
            await once(client, 'close');
            return `\`${seen}\``;
          }),
      );
    },
  },
  {
    title: 'The target `localhost` resolves to `::1` and 127.0.0.1 but listens only on 127.0.0.1: served of 20 clients',
    try: (start) => {
      const hosts = join(tmpdir(), `zerosend-peers-${process.pid}.hosts`);
      writeFileSync(hosts, '::1 localhost\n127.0.0.1 localhost\n');
      return withTarget(
        (socket) => void socket.end('x'),
        (target) =>
          withRelay(
            start,
            `localhost:${target}`,
            async ({ port }) => {
              let served = 0;
              for (let times = 0; times < 20; times++) {
                const client = await dial(port);
                await until(() => client.ended !== undefined, 10_000);
                if (client.received.length > 0) served += 1;
                client.socket.destroy();
              }
              rmSync(hosts);
              return String(served);
            },
            { hosts },
          ),
      );
    },
  },
];
