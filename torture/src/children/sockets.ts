/** A program that uses relays, transfers, uploads and worker threads that exit during them. */
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

import type { FileCache, Method, ZerosendError } from 'zerosend';

import { control, zerosend } from './control.js';

/** The moment of the call of `relay`, and the state of the socket then. */
export const MOMENTS = ['at once', 'after data', 'after readable', 'paused', 'later', 'in a tick'] as const;
export type Moment = (typeof MOMENTS)[number];

const ignoreErrors = <S extends Socket>(socket: S): S => socket.on('error', () => {});

/** Resolves at the moment, with the bytes that the program has read before. */
async function moment(socket: Socket, when: Moment): Promise<Buffer | undefined> {
  switch (when) {
    case 'after data':
      return ((await once(socket, 'data')) as [Buffer])[0];
    case 'after readable': {
      await once(socket, 'readable');
      return (socket.read() as Buffer | null) ?? undefined;
    }
    case 'paused':
      socket.pause();
      await sleep(5);
      return undefined;
    case 'later':
      await sleep(20);
      return undefined;
    case 'in a tick':
      await new Promise<void>((resolve) => process.nextTick(resolve));
      return undefined;
    default:
      return undefined;
  }
}

function relayServer(target: number, when: Moment, method: 'auto' | 'splice' | 'read-write'): Promise<number> {
  const pauseOnConnect = when === 'paused';
  const server = createServer({ allowHalfOpen: true, pauseOnConnect }, (socket) => {
    ignoreErrors(socket);
    const upstream = ignoreErrors(connect({ port: target, host: '127.0.0.1', allowHalfOpen: true }));
    const join = async (taken?: Buffer) => {
      if (upstream.connecting) await once(upstream, 'connect');
      if (taken !== undefined) upstream.write(taken);
      await zerosend.relay(socket, upstream, { method });
    };
    // In the callback; after an await the state would differ.
    const joined =
      when === 'after data'
        ? new Promise((resolve, reject) => {
            upstream.once('connect', () => {
              socket.once('data', (taken: Buffer) => {
                upstream.write(taken);
                zerosend.relay(socket, upstream, { method }).then(resolve, reject);
              });
              socket.resume();
            });
            socket.once('error', reject);
          })
        : moment(socket, when).then(join);
    joined.catch(() => {
      socket.destroy();
      upstream.destroy();
    });
  });
  return listen(server);
}

const servers: ReturnType<typeof createServer>[] = [];
async function listen(server: ReturnType<typeof createServer>): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  servers.push(server);
  return (server.address() as AddressInfo).port;
}

export interface Transfer {
  /** The target. */
  port: number;
  path: string;
  head: string;
  method: Method;
  from: 'path' | 'descriptor' | 'cache';
  offset?: number;
  length?: number;
  /** Milliseconds until it is aborted. */
  cancelAfter?: number;
  timeout?: number;
}

export interface TransferOutcome {
  bytes: number;
  error?: string;
  /** Milliseconds from the abort to the rejection. */
  lateBy?: number;
}

let cache: FileCache | undefined;

async function send({ port, path, head, from, cancelAfter, ...options }: Transfer): Promise<TransferOutcome> {
  const socket = ignoreErrors(connect({ port, host: '127.0.0.1', allowHalfOpen: true }));
  await once(socket, 'connect');
  socket.resume();
  const controller = new AbortController();
  let cancelled = 0;
  const timer = setTimeout(
    () => {
      cancelled = performance.now();
      controller.abort();
    },
    cancelAfter ?? 2 ** 30,
  );
  cache ??= new zerosend.FileCache({ maxFileSize: 4 << 20 });
  let descriptor: number | undefined;
  try {
    // Opened with O_NONBLOCK, to test the limits of sendFile and not open(2).
    if (from === 'descriptor') descriptor = openSync(path, 'r');
    const source = from === 'cache' ? await cache.get(path) : (descriptor ?? path);
    const { bytes } = await zerosend.sendFile(socket, source, { head, signal: controller.signal, ...options });
    socket.end();
    return { bytes };
  } catch (error) {
    // After an abort the socket stays open. After other errors sendFile has reset it if a part was sent.
    const { code, bytes = 0 } = error as ZerosendError;
    if (bytes === 0 || code === 'ABORT_ERR') socket.resetAndDestroy();
    else setTimeout(() => socket.destroy(), 1000).unref();
    return { bytes, error: code, ...(cancelled > 0 ? { lateBy: performance.now() - cancelled } : {}) };
  } finally {
    clearTimeout(timer);
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/** A server that receives into the file named in the first 256 bytes, and responds with the number of bytes. */
function uploadServer(when: Moment): Promise<number> {
  return listen(
    createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      ignoreErrors(socket);
      void (async () => {
        let head = Buffer.alloc(0);
        while (head.length < 256) {
          const piece = socket.read(256 - head.length) as Buffer | null;
          if (piece !== null) head = Buffer.concat([head, piece]);
          else if (socket.readableEnded) return socket.destroy();
          else await once(socket, 'readable');
        }
        const [path = '', length] = head.toString('latin1').trim().split(' ');
        await moment(socket, when === 'paused' ? 'later' : 'at once');
        const { bytes } = await zerosend.receiveFile(socket, path, { length: Number(length) });
        socket.end(String(bytes));
      })().catch((error: ZerosendError) => socket.end(error.code));
    }),
  );
}

/** A worker thread that is terminated while it works. */
async function worker({
  what,
  ms,
  root,
  path,
}: {
  what: string;
  ms: number;
  root: string;
  path: string;
}): Promise<void> {
  const script = `
    const { workerData: { entry, what, path } } = require('node:worker_threads');
    import(entry).then(async (zerosend) => {
      const { connect, createServer } = await import('node:net');
      const { dirname } = await import('node:path');
      switch (what) {
        case 'ring': {
          const ring = await zerosend.SharedRing.create(null, { capacity: 65536 });
          for await (const message of ring) void message;
          break;
        }
        case 'ring writer': {
          const ring = await zerosend.SharedRing.create(null, { capacity: 65536 });
          while (true) if (!ring.write(Buffer.alloc(1000))) await ring.drained();
        }
        case 'transfer': {
          const server = createServer((socket) => socket.pause()).listen(0, '127.0.0.1', () => {
            const socket = connect(server.address().port, '127.0.0.1', () => zerosend.sendFile(socket, path).catch(() => {}));
          });
          break;
        }
        case 'server': {
          const server = zerosend.createFileServer({ root: dirname(path), workers: 2 });
          const { url } = await server.listen();
          while (true) await fetch(url + 'canary.bin').then((response) => response.arrayBuffer());
        }
        case 'proxy': {
          const proxy = await zerosend.createEchoServer({ listen: { port: 0 } });
          const socket = connect(proxy.address.port, '127.0.0.1', () => socket.write('x'));
          socket.on('data', (data) => socket.write(data));
          break;
        }
        case 'cache': {
          const cache = new zerosend.FileCache();
          while (true) await (await cache.get(path)).read();
        }
      }
    });`;
  const thread = new Worker(script, { eval: true, workerData: { entry: `${root}/dist/index.js`, what, path } });
  const failed = once(thread, 'error').then(([error]) => error as Error);
  await Promise.race([sleep(ms), failed.then((error) => Promise.reject(error))]);
  await thread.terminate();
}

control({
  relay: async ({
    target,
    method,
  }: {
    target: number;
    method: 'auto' | 'splice' | 'read-write';
  }): Promise<Record<Moment, number>> =>
    Object.fromEntries(
      await Promise.all(MOMENTS.map(async (when) => [when, await relayServer(target, when, method)])),
    ) as Record<Moment, number>,
  upload: async () => [await uploadServer('at once'), await uploadServer('paused')],
  send,
  worker,
  end: () => {
    for (const server of servers) server.close();
    cache?.close();
  },
});
