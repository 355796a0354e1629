/** Timeouts and aborts of transfers in every phase: opening, waiting, turns, slow sources, hung file systems. */
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import test, { type ExecutionContext } from 'ava';
import { createFileServer, receiveFile, sendFile } from 'zerosend';

import { METHODS } from '../../dist/lib/types/method.js';
import { fuseSerial, mount } from '../support/faultfs.js';
import { openDescriptors, pattern, patternFile, scratch, until } from '../support/files.js';
import { get, pair } from '../support/wire.js';

const MiB = 1024 * 1024;

/** Collects the bytes that a socket receives, and pauses it after the requested number. */
class Receiver {
  readonly #socket: Socket;
  readonly #chunks: Buffer[] = [];
  #length = 0;
  #wanted = 0;
  #reached = () => {};

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#length += chunk.length;
      if (this.#length >= this.#wanted) {
        socket.pause();
        this.#reached();
      }
    });
    socket.pause();
  }

  /** Resolves with all bytes so far when there are at least `length`. */
  async reach(length: number): Promise<Buffer> {
    this.#wanted = length;
    if (this.#length < length) {
      await new Promise<void>((resolve) => {
        this.#reached = resolve;
        this.#socket.resume();
      });
    }
    return Buffer.concat(this.#chunks);
  }
}

type Cause = 'timeout' | 'signal' | 'close';

const CODES = { timeout: 'ERR_ZEROSEND_TIMEOUT', signal: 'ABORT_ERR', close: 'ERR_ZEROSEND_CLOSED' };

/** Starts a transfer that hangs in some phase, and ends it by `cause`. */
async function ends(
  t: ExecutionContext,
  cause: Cause,
  phase: RegExp,
  start: (options: { timeout?: number; signal?: AbortSignal }) => Promise<unknown>,
  close: () => void,
  hangs: () => Promise<unknown>,
): Promise<void> {
  const stop = new AbortController();
  const options = cause === 'timeout' ? { timeout: 300 } : cause === 'signal' ? { signal: stop.signal } : {};
  const transfer = t.throwsAsync(start(options));
  await hangs();
  if (cause === 'signal') stop.abort();
  if (cause === 'close') close();
  const error = await transfer;
  t.is((error as NodeJS.ErrnoException).code, CODES[cause]);
  if (cause === 'timeout') t.regex(error?.message ?? '', phase);
}

for (const operation of ['lookup', 'open'] as const) {
  fuseSerial(
    `timeout, signal and close take effect while ${operation} hangs; a file opened later is closed`,
    async (t) => {
      const fs = await mount(t, { entryTimeout: 0 });
      writeFileSync(join(fs.backing, 'file'), 'bytes');
      const path = join(fs.path, 'file');
      for (const cause of ['timeout', 'signal', 'close'] as const) {
        for (const to of ['socket', 'descriptor', 'file'] as const) {
          if (to === 'descriptor' && cause === 'close') continue;
          const { server } = await pair(t);
          const { fd } = (server as unknown as { _handle: { fd: number } })._handle;
          await fs.set(operation, { hang: true }, '/file');
          const phase = to === 'file' ? /target file cannot be opened/ : /source file cannot be opened/;
          await ends(
            t,
            cause,
            phase,
            (options) =>
              to === 'file'
                ? receiveFile(server, path, options)
                : sendFile(to === 'socket' ? server : fd, path, options),
            () => server.destroy(),
            () => fs.held(operation),
          );
          await fs.clear();
          await until(() => !openDescriptors().includes(path), 20_000, 'that the late file is closed');
          server.destroy();
        }
      }
    },
  );
}

fuseSerial('a timeout names a slow source for transfers to sockets and descriptors', async (t) => {
  const fs = await mount(t);
  for (const to of ['socket', 'descriptor'] as const) {
    const { server, client } = await pair(t);
    client.resume();
    // Another file, because opening a file whose pages are being read waits for them.
    patternFile(fs.backing, to, 4 * MiB);
    await fs.set('read', { hang: true });
    const target = to === 'socket' ? server : (server as unknown as { _handle: { fd: number } })._handle.fd;
    const error = await t.throwsAsync(sendFile(target, join(fs.path, to), { timeout: 500 }));
    t.is((error as NodeJS.ErrnoException).code, 'ERR_ZEROSEND_TIMEOUT', to);
    t.regex(error?.message ?? '', /the source file's storage is too slow or hangs/, to);
    await fs.clear();
    const sent = await sendFile(target, join(fs.path, to), { offset: 0, length: 10 });
    t.is(sent.bytes, 10, 'the caller can continue');
  }
});

test.serial('a timeout names a slow receiver; a waiting transfer has its own timeout and signal', async (t) => {
  const file = patternFile(scratch(t), 'file', 16 * MiB);
  for (const to of ['socket', 'descriptor'] as const) {
    for (const cause of ['timeout', 'signal', 'close'] as const) {
      if (to === 'descriptor' && cause === 'close') continue;
      const { server, client } = await pair(t);
      const target = to === 'socket' ? server : (server as unknown as { _handle: { fd: number } })._handle.fd;
      const stop = new AbortController();
      const first = sendFile(target, file, { signal: stop.signal });
      first.catch(() => {});
      const phase = /an earlier transfer to the same target makes no progress/;
      await ends(
        t,
        cause,
        phase,
        (options) => sendFile(target, file, options),
        () => server.destroy(),
        async () => {},
      );
      if (cause === 'close') {
        await t.throwsAsync(first, { code: 'ERR_ZEROSEND_CLOSED' });
        continue;
      }
      const third = sendFile(target, file, { length: 5 });
      client.resume();
      t.is((await first).bytes, 16 * MiB, 'the first transfer is not affected');
      t.is((await third).bytes, 5, 'the third transfer does not wait for the second');
      const slow = await pair(t);
      const error = await t.throwsAsync(sendFile(slow.server, file, { timeout: 300 }));
      t.regex(error?.message ?? '', /the receiver is too slow or gone/);
    }
  }
});

test.serial('a waiting transfer does not time out while the earlier one makes progress', async (t) => {
  const file = patternFile(scratch(t), 'file', 12 * MiB);
  for (const to of ['socket', 'descriptor'] as const) {
    const { server, client } = await pair(t);
    const target = to === 'socket' ? server : (server as unknown as { _handle: { fd: number } })._handle.fd;
    const first = sendFile(target, file);
    const second = sendFile(target, file, { length: 7, timeout: 1500 });
    // The whole transfer takes longer than the timeout, but there is progress.
    const receiver = new Receiver(client);
    for (let part = 1; part < 6; part += 1) {
      await receiver.reach(part * 2 * MiB);
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    client.resume();
    t.is((await first).bytes, 12 * MiB);
    t.is((await second).bytes, 7);
  }
});

fuseSerial('a hung file system does not delay files of others', async (t) => {
  const fs = await mount(t, { entryTimeout: 0, attrTimeout: 0 });
  const root = scratch(t);
  mkdirSync(join(root, 'site'));
  for (let at = 0; at < 60; at += 1) writeFileSync(join(fs.backing, `file-${at}`), 'remote');
  writeFileSync(join(root, 'site', 'file'), 'local');
  const [local, remote] = await Promise.all(
    [join(root, 'site'), fs.path].map(async (directory) => {
      const server = createFileServer({ root: directory, port: 0 });
      t.teardown(() => server.close());
      return ((await server.listen()) as { port: number }).port;
    }),
  );

  await fs.set('*', { hang: true }, '/file-*');
  const stop = new AbortController();
  const sockets = await Promise.all(Array.from({ length: 60 }, () => pair(t)));
  const hung = sockets.map(({ server: socket }, at) =>
    sendFile(socket, join(fs.path, `file-${at}`), { signal: stop.signal }),
  );
  const gets = Array.from({ length: 60 }, (_, at) => get(remote as number, `/file-${at}`).catch(() => undefined));
  const settled = Promise.allSettled(hung);
  await fs.held('lookup', 4);

  for (let turn = 0; turn < 10; turn += 1) {
    const { server: socket, client } = await pair(t);
    client.resume();
    t.is((await sendFile(socket, join(root, 'site', 'file'))).bytes, 5);
    writeFileSync(join(root, 'site', `new-${turn}`), 'new');
    t.is((await get(local as number, `/new-${turn}`)).body.toString(), 'new');
  }
  stop.abort();
  for (const { status } of await settled) t.is(status, 'rejected');
  await fs.clear();
  await Promise.all(gets);
});

fuseSerial('a worker thread exits while its files hang', async (t) => {
  const fs = await mount(t, { entryTimeout: 0 });
  writeFileSync(join(fs.backing, 'file'), 'bytes');
  await fs.set('open', { hang: true }, '/file');
  const code = `
    const { connect, createServer } = require('node:net');
    const { parentPort, workerData } = require('node:worker_threads');
    const server = createServer().listen(0, '127.0.0.1', () => {
      const socket = connect(server.address().port, '127.0.0.1', async () => {
        const { sendFile } = await import(workerData.module);
        for (let n = 0; n < 40; n++) sendFile(socket, workerData.path).catch(() => {});
        parentPort.postMessage('sent');
      });
    });`;
  const module = new URL('../../dist/index.js', import.meta.url).href;
  const worker = new Worker(code, { eval: true, workerData: { module, path: join(fs.path, 'file') } });
  await once(worker, 'message');
  await fs.held('open');
  t.is(await worker.terminate(), 1);
  await fs.clear();
  await until(() => !openDescriptors().includes(join(fs.path, 'file')), 20_000, 'that the late files are closed');
});

fuseSerial('the JavaScript thread does not wait for a file system that does not report residency', async (t) => {
  const fs = await mount(t, { keepCache: false });
  const file = join(fs.path, 'file');
  patternFile(fs.backing, 'file', 6 * MiB);
  for (const method of METHODS) {
    const { server, client } = await pair(t);
    const first = sendFile(server, file, { method });
    const receiver = new Receiver(client);
    await receiver.reach(MiB);
    // Opening the file again drops its cached pages.
    closeSync(openSync(file, 'r'));
    await fs.set('read', { hang: true });
    const all = receiver.reach(6 * MiB);
    await fs.held('read');
    // Checks that this thread is not blocked.
    await fs.clear();
    t.is((await first).bytes, 6 * MiB, method);
    t.true((await all).equals(pattern(6 * MiB)), method);
  }
});
