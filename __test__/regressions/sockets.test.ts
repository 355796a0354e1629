/** Failed transfers as their peer observes them, and transfers with sockets that are half-closed or full, or without descriptors. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { open, readFile, truncate, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import {
  createProxy,
  createSplitter,
  Pipe,
  receiveFile,
  relay,
  sendFile,
  sendFiles,
  type ZerosendError,
} from 'zerosend';

import { pattern, patternFile, scratch, sha256, until } from '../support/files.js';
import { portOf, readAll } from '../support/wire.js';

const MIB = 1024 * 1024;

async function pair(t: ExecutionContext, options: net.ServerOpts = {}): Promise<[net.Socket, net.Socket]> {
  const server = net.createServer({ allowHalfOpen: true, ...options }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const outside = net.connect({ port: portOf(server), host: '127.0.0.1', allowHalfOpen: true });
  const [inside] = (await once(server, 'connection')) as [net.Socket];
  server.close();
  for (const socket of [outside, inside]) {
    socket.on('error', () => {});
    t.teardown(() => socket.destroy());
  }
  return [inside, outside];
}

/**
 * How a connection ends for its reader, by what its next write meets: libuv reports a reset that arrives together with bytes
 * as the end (`uv__stream_io`, POLLHUP after a partial read).
 */
function ending(socket: net.Socket): Promise<'FIN' | 'reset'> {
  return new Promise((resolve) => {
    socket.once('error', () => resolve('reset'));
    const probe = () => socket.write('x', (error) => resolve(error ? 'reset' : 'FIN'));
    if (socket.destroyed) resolve('reset');
    else if (socket.readableEnded) probe();
    else socket.once('end', probe);
    socket.resume();
  });
}

test.serial('a receiver gets a reset when the file is truncated during the transfer', async (t) => {
  const path = patternFile(scratch(t), 'file', 30 * MIB);
  for (const send of [sendFile, (to: net.Socket) => sendFiles(to, [Buffer.from('head'), { file: path }])]) {
    await writeFile(path, pattern(30 * MIB));
    const [inside, outside] = await pair(t);
    const sending = t.throwsAsync(send(inside, path), { code: 'ERR_ZEROSEND_TRUNCATED' });
    await until(() => outside.readableLength > 0);
    await truncate(path, 10 * MIB);
    t.is(await ending(outside), 'reset');
    await sending;
  }
});

for (const how of ['signal', 'timeout'] as const) {
  test.serial(`after ${how} of sendFile the socket can be reset or used further`, async (t) => {
    const path = patternFile(scratch(t), 'file', 16 * MIB);
    const stop = (to: net.Socket) => {
      const controller = new AbortController();
      const sending = sendFile(to, path, how === 'timeout' ? { timeout: 50 } : { signal: controller.signal });
      if (how === 'signal') setTimeout(() => controller.abort(), 30);
      return t.throwsAsync(sending) as Promise<unknown> as Promise<ZerosendError>;
    };
    {
      const [inside, outside] = await pair(t);
      t.true(((await stop(inside)).bytes ?? 0) > 0);
      t.false(inside.destroyed);
      inside.destroy();
      t.is(await ending(outside), 'reset');
    }
    {
      // The client half-closes during the transfer, so Node ends the socket.
      const [inside, outside] = await pair(t, { allowHalfOpen: false });
      inside.resume();
      const stopped = stop(inside);
      outside.end();
      await stopped;
      t.is(await ending(outside), 'reset');
    }
    {
      const [inside, outside] = await pair(t);
      const { bytes = 0 } = await stop(inside);
      const received = readAll(outside);
      await sendFile(inside, path, { offset: bytes });
      inside.destroySoon();
      t.is(sha256(await received), sha256(pattern(16 * MIB)));
    }
  });
}

test.serial('a relay and a splitter that fail reset incomplete streams', async (t) => {
  for (const how of ['signal', 'idle', 'destroyed'] as const) {
    const [[a, aOutside], [b, bOutside]] = [await pair(t), await pair(t)];
    const controller = new AbortController();
    const joined = relay(a, b, { signal: controller.signal, idleTimeout: how === 'idle' ? 50 : 0 });
    const ends = Promise.all([ending(aOutside), ending(bOutside)]);
    aOutside.write('a part');
    await once(bOutside, 'data');
    if (how === 'signal') controller.abort();
    if (how === 'destroyed') b.destroy();
    await t.throwsAsync(joined);
    t.deepEqual(await ends, ['reset', 'reset'], how);
  }
  const [[source, sourceOutside], [sink, sinkOutside]] = [await pair(t), await pair(t)];
  const splitter = await createSplitter(source, [sink]);
  const end = ending(sinkOutside);
  sourceOutside.write('a part');
  await once(sinkOutside, 'data');
  sourceOutside.resetAndDestroy();
  await t.throwsAsync(splitter.finished, { code: 'ECONNRESET' });
  t.is(await end, 'reset');
});

test.serial('a signal aborts a relay while a socket connects, and while the peer does not read', async (t) => {
  const [a, aOutside] = await pair(t);
  const controller = new AbortController();
  // An address in TEST-NET-1, RFC 5737, which does not respond or is refused at once.
  const connecting = net.connect(9, '192.0.2.1').on('error', () => {});
  const joined = relay(a, connecting, { signal: controller.signal });
  controller.abort();
  await t.throwsAsync(joined);
  t.is(await ending(aOutside), 'reset');

  const [full, fullOutside] = await pair(t);
  const [c] = await pair(t);
  full.write(Buffer.alloc(16 * MIB));
  await t.throwsAsync(relay(full, c, { idleTimeout: 50 }), {
    code: 'ERR_ZEROSEND_TIMEOUT',
    message: /earlier writes/,
  });
  t.is(await ending(fullOutside), 'reset');
});

test.serial('sendFile works in the end event of a half-closed client, and is refused later', async (t) => {
  const path = patternFile(scratch(t), 'file', 4 * MIB);
  for (const allowHalfOpen of [true, false]) {
    const [inside, outside] = await pair(t, { allowHalfOpen });
    const received = readAll(outside);
    outside.end('request');
    inside.resume();
    const sent = new Promise((resolve, reject) => {
      inside.once('end', () => sendFile(inside, path).then(resolve, reject));
    });
    await sent;
    inside.end();
    t.is(sha256(await received), sha256(pattern(4 * MIB)), `${allowHalfOpen}`);
  }
  const [inside, outside] = await pair(t, { allowHalfOpen: false });
  outside.resume().end('request');
  inside.resume();
  await once(inside, 'end');
  await until(() => inside.writableEnded);
  const error = await t.throwsAsync(sendFile(inside, path), { code: 'ERR_ZEROSEND_CLOSED' });
  if (!inside.destroyed) t.regex(error?.message ?? '', /allowHalfOpen/);
});

test.serial('a client that half-closes during sendFile receives the file and later writes', async (t) => {
  const path = patternFile(scratch(t), 'file', 8 * MIB);
  const [inside, outside] = await pair(t, { allowHalfOpen: false });
  inside.resume();
  const sending = sendFile(inside, path);
  outside.end();
  await once(inside, 'end');
  inside.write('after');
  const received = readAll(outside);
  await sending;
  t.is(sha256(await received), sha256(Buffer.concat([pattern(8 * MIB), Buffer.from('after')])));
});

test.serial('relay with too few descriptors left fails with EMFILE', (t) => {
  const program = `
    import net from 'node:net';
    import { once } from 'node:events';
    import { openSync, closeSync } from 'node:fs';
    import { relay } from '${import.meta.resolve('zerosend')}';
    const make = async () => {
      const server = net.createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      net.connect(server.address().port, '127.0.0.1').on('error', () => {});
      const [socket] = await once(server, 'connection');
      return socket;
    };
    const codes = new Set();
    for (let left = 0; left < 8; left++) {
      const [a, b] = [await make(), await make()];
      const held = [];
      try { for (;;) held.push(openSync('/dev/null')); } catch {}
      for (let count = 0; count < left; count++) closeSync(held.pop());
      const joined = relay(a, b, { signal: AbortSignal.timeout(200) }).then(() => 'done', (error) => error.code);
      const code = await joined;
      for (const fd of held) closeSync(fd);
      codes.add(code);
    }
    console.log([...codes].join());
    process.exit();`;
  const shell = `ulimit -n 80; exec "${process.execPath}" --input-type=module -e "$PROGRAM"`;
  const { stdout, stderr } = spawnSync('sh', ['-c', shell], {
    encoding: 'utf8',
    timeout: 30_000,
    env: { ...process.env, PROGRAM: program, NODE_OPTIONS: '' },
  });
  t.regex(stdout, /EMFILE/, stderr);
  t.deepEqual(
    stdout
      .trim()
      .split(',')
      .filter((code) => !['EMFILE', 'ABORT_ERR'].includes(code)),
    [],
    stdout,
  );
});

test.serial('receiveFile continues a partial file with offset and append', async (t) => {
  const directory = scratch(t);
  const whole = pattern(300_000);
  const path = join(directory, 'file');
  const cases: Array<[string, () => Promise<object>]> = [
    ['offset of a path', async () => ({ target: path, offset: 100_000 })],
    ['append to a path', async () => ({ target: path, append: true })],
    ['offset of a handle', async () => ({ target: await open(path, 'r+'), offset: 100_000 })],
    ['append to a handle', async () => ({ target: await open(path, 'r+'), append: true })],
  ];
  for (const [name, make] of cases) {
    await writeFile(path, whole.subarray(0, 100_000));
    const { target, ...options } = (await make()) as { target: string };
    const [inside, outside] = await pair(t);
    // Node has buffered a part of the bytes.
    inside.once('readable', () => {});
    outside.write(whole.subarray(100_000, 100_005));
    await until(() => inside.readableLength > 0);
    outside.end(whole.subarray(100_005));
    t.is((await receiveFile(inside, target, options)).bytes, 200_000, name);
    t.is(sha256(await readFile(path)), sha256(whole), name);
    if (typeof target === 'object') await (target as { close(): Promise<void> }).close();
  }
  const pipe = new Pipe();
  await writeFile(path, 'abcdef');
  await sendFile(pipe.writeFd, patternFile(directory, 'two', 2));
  t.is((await receiveFile(pipe.readFd, path, { offset: 2, length: 2 })).bytes, 2);
  t.deepEqual(await readFile(path), Buffer.concat([Buffer.from('ab'), pattern(2), Buffer.from('ef')]), 'inside');
  const missing = join(directory, 'new');
  await sendFile(pipe.writeFd, patternFile(directory, 'two', 2));
  t.is((await receiveFile(pipe.readFd, missing, { append: true, length: 2 })).bytes, 2, 'a path that is missing');
  const wrong: Array<[object, string, RegExp]> = [
    [{ offset: -1 }, 'ERR_ZEROSEND_OUT_OF_RANGE', /invalid offset -1/],
    [{ offset: 1.5 }, 'ERR_ZEROSEND_OUT_OF_RANGE', /invalid offset 1.5/],
    [{ offset: '1' }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid offset '1'/],
    [{ append: 1 }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid append 1/],
    [{ append: true, offset: 0 }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /offset and append/],
    [{ offset: 7 }, 'ERR_ZEROSEND_OUT_OF_RANGE', /offset 7 is beyond the end of the file \(6 bytes\)/],
  ];
  for (const [options, code, message] of wrong) {
    await t.throwsAsync(receiveFile(pipe.readFd, path, options), { code, message });
  }
  const first = receiveFile(pipe.readFd, path, { append: true });
  const other = new Pipe();
  await t.throwsAsync(receiveFile(other.readFd, path, { append: true }), { code: 'ERR_ZEROSEND_BUSY' });
  pipe.close('write');
  await first;
  other.close();
});

test.serial('callbacks run in the AsyncLocalStorage context of the caller', async (t) => {
  const storage = new AsyncLocalStorage<string>();
  const path = patternFile(scratch(t), 'file', 8 * MIB);
  const send = async (kind: 'descriptor' | 'socket', name: string) => {
    const [inside, outside] = await pair(t);
    const seen = new Set<string | undefined>();
    setTimeout(() => outside.resume(), 80);
    await storage.run(name, async () => {
      const target = kind === 'socket' ? inside : (inside as unknown as { _handle: { fd: number } })._handle.fd;
      const onProgress = () => seen.add(storage.getStore());
      const sending = sendFile(target, path, { onProgress });
      await sending;
      t.is(storage.getStore(), name);
    });
    t.deepEqual([...seen], [name]);
  };
  await Promise.all(
    (['descriptor', 'socket', 'descriptor', 'socket'] as const).map((kind, at) => send(kind, `${kind} ${at}`)),
  );

  const target = net.createServer((socket) => socket.end('here')).listen(0, '127.0.0.1');
  await once(target, 'listening');
  t.teardown(() => target.close());
  const stores: Array<string | undefined> = [];
  const proxy = await storage.run('proxy', () =>
    createProxy({
      workers: 1,
      target: () => {
        stores.push(storage.getStore());
        return portOf(target);
      },
    }),
  );
  t.teardown(() => proxy.close({ drain: 0 }));
  const client = net.connect('port' in proxy.address ? proxy.address.port : 0, '127.0.0.1');
  t.is((await readAll(client)).toString(), 'here');
  t.deepEqual(stores, ['proxy']);
});
