/** sendFile and sendFiles with every method: results, limits, aborting and resuming. */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, openSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import { type SendFileOptions, sendFile, sendFiles, sliceRanges, type ZerosendError } from 'zerosend';

import { requireNative } from '../dist/lib/runtime/native.js';
import { METHODS as ALL_METHODS } from '../dist/lib/types/method.js';
import { openDescriptors, pattern, patternFile, scratch, settled, sha256 } from './support/files.js';
import { serialTestWith } from './support/tools.js';
import { pair, readAll } from './support/wire.js';

const METHODS = ALL_METHODS.filter((method) => method !== 'auto');
const MIB = 1024 * 1024;

test('the methods of the types are those of the native binding', (t) => {
  t.deepEqual(ALL_METHODS, requireNative().methodNames());
});

for (const kind of ['TCP', 'Unix'] as const) {
  test.serial(`every method over ${kind}: bytes and result`, async (t) => {
    const directory = scratch(t);
    for (const size of [0, 1, 4095, 65_537, 3 * MIB + 3]) {
      const file = patternFile(directory, 'file', size);
      for (const method of METHODS) {
        const { server, client } = await pair(t, kind === 'Unix' ? join(directory, `${method}${size}`) : undefined);
        const received = readAll(client);
        const result = await sendFile(server, file, { method, head: 'head' });
        server.end();
        t.is(sha256(await received), sha256(Buffer.concat([Buffer.from('head'), pattern(size)])), `${method} ${size}`);
        t.deepEqual(Object.keys(result).sort(), ['bytes', 'durationMs', 'method', 'syscalls']);
        t.like(result, { bytes: size + 4, method });
        t.true(result.syscalls > 0 && result.durationMs >= 0);
        server.destroy();
      }
    }
  });
}

test.serial('files of procfs have size 0 and are sent completely', async (t) => {
  for (const method of METHODS) {
    const { server, client } = await pair(t);
    const received = readAll(client);
    const result = await sendFile(server, '/proc/version', { method });
    await sendFile(server, '/proc/version', { method, offset: 5, length: 5 });
    server.end();
    const version = readFileSync('/proc/version', 'latin1');
    t.is((await received).toString('latin1'), version + version.slice(5, 10));
    t.is(result.bytes, version.length);
    t.is(result.method, 'read-write', `${method} is replaced`);
  }
});

test.serial('every method sends files of tmpfs', async (t) => {
  const directory = '/dev/shm';
  const file = join(directory, `zerosend-${process.pid}`);
  writeFileSync(file, pattern(200_000));
  t.teardown(() => spawnSync('rm', ['-f', file]));
  for (const method of METHODS) {
    const { server, client } = await pair(t);
    const received = readAll(client);
    const result = await sendFile(server, file, { method });
    server.end();
    t.is(sha256(await received), sha256(pattern(200_000)));
    t.is(result.method, method, 'every method works on tmpfs');
  }
});

const overlay = spawnSync('sh', ['-c', 'test "$(id -u)" = 0 && grep -q overlay /proc/filesystems']).status === 0;
if (!overlay) console.warn('skipped: the test on overlayfs needs root and overlayfs');
(overlay ? test.serial : test.serial.skip)('overlayfs', async (t) => {
  const directory = scratch(t);
  for (const name of ['lower', 'upper', 'work', 'merged']) mkdirSync(join(directory, name));
  patternFile(join(directory, 'lower'), 'file', MIB);
  const at = (name: string) => join(directory, name);
  const options = `lowerdir=${at('lower')},upperdir=${at('upper')},workdir=${at('work')}`;
  const mounted = spawnSync('mount', ['-t', 'overlay', 'overlay', '-o', options, at('merged')]);
  if (mounted.status !== 0) {
    t.log(`skipped: ${mounted.stderr}`);
    t.pass();
    return;
  }
  t.teardown(() => spawnSync('umount', [at('merged')]));
  for (const method of METHODS) {
    const { server, client } = await pair(t);
    const received = readAll(client);
    const result = await sendFile(server, join(at('merged'), 'file'), { method });
    server.end();
    t.is(sha256(await received), sha256(pattern(MIB)), method);
    t.is(result.method, method, 'every method works on overlayfs');
  }
});

test.serial('a sparse file of 5 GiB is sent with little memory', async (t) => {
  const file = patternFile(scratch(t), 'sparse', 1000);
  truncateSync(file, 5 * 1024 * MIB);
  for (const method of METHODS) {
    const { server, client } = await pair(t);
    const received = readAll(client);
    const offset = 5 * 1024 * MIB - 2 * MIB - 500;
    const rss = process.memoryUsage().rss;
    await sendFile(server, file, { method, offset });
    server.end();
    t.is(sha256(await received), sha256(Buffer.alloc(2 * MIB + 500)));
    t.true(process.memoryUsage().rss - rss < 512 * MIB, method);
  }
});

test.serial('progress: at most every 50 ms, and once at the end', async (t) => {
  const file = patternFile(scratch(t), 'file', 24 * MIB);
  for (const fd of [false, true]) {
    const { server, client } = await pair(t);
    const calls: { at: number; bytes: number }[] = [];
    const began = performance.now();
    // A slow reader, so that the transfer takes some time.
    const reading = (async () => {
      let count = 0;
      for await (const chunk of client) {
        count += (chunk as Buffer).length;
        if (count % 7 === 0 || performance.now() - began < 300) await new Promise((resolve) => setTimeout(resolve, 1));
      }
      return count;
    })();
    const target = fd ? (server as unknown as { _handle: { fd: number } })._handle.fd : server;
    const result = await sendFile(target, file, {
      onProgress: (bytes) => calls.push({ at: performance.now(), bytes }),
    });
    server.end();
    t.is(await reading, 24 * MIB);
    t.is(calls.at(-1)?.bytes, 24 * MIB);
    t.is(calls.filter(({ bytes }) => bytes === 24 * MIB).length, 1, 'the end is reported once');
    t.true(calls.length > 2, `${calls.length} in ${result.durationMs} ms`);
    t.true(calls.length <= result.durationMs / 50 + 1, `${calls.length} in ${result.durationMs} ms`);
    const gaps = calls.slice(1, -1).map(({ at }, index) => at - (calls[index]?.at as number));
    t.true(
      gaps.every((gap) => gap >= 40),
      String(gaps),
    );
    t.true(calls.every(({ bytes }, index) => index === 0 || bytes > (calls[index - 1]?.bytes as number)));
  }
});

test.serial('an aborted transfer ends at once and can be resumed by offset', async (t) => {
  const file = patternFile(scratch(t), 'file', 40 * MIB);
  const before = openDescriptors();
  for (const method of METHODS) {
    for (const fd of [false, true]) {
      const { server, client } = await pair(t);
      const chunks: Buffer[] = [];
      client.on('data', (chunk) => chunks.push(chunk));
      const target = fd ? (server as unknown as { _handle: { fd: number } })._handle.fd : server;
      const controller = new AbortController();
      client.once('data', () => {
        client.pause();
        setTimeout(() => controller.abort(), 10);
      });
      // A chunk is much larger than the socket buffer: an abort that waited for its end would never complete.
      const sending = sendFile(target, file, { method, signal: controller.signal, chunkSize: 2 ** 30 });
      const asked = once(controller.signal, 'abort').then(() => performance.now());
      const error = (await t.throwsAsync(sending, {
        code: 'ABORT_ERR',
        name: 'AbortError',
      })) as unknown as ZerosendError;
      t.true(performance.now() - (await asked) < 1000, 'at once');
      const sent = error.bytes as number;
      t.true(sent > 0 && sent < 40 * MIB);
      client.resume();
      await sendFile(target, file, { method, offset: sent });
      server.end();
      await once(client, 'end');
      t.is(sha256(Buffer.concat(chunks)), sha256(pattern(40 * MIB)), `${method} at ${sent}`);
      client.destroy();
      server.destroy();
    }
  }
  await settled(t, before);
});

test.serial('chunkSize limits a turn, so that other transfers run', async (t) => {
  const file = patternFile(scratch(t), 'file', 16 * MIB);
  const { server, client } = await pair(t);
  const received = readAll(client);
  const small = await sendFile(server, file, { chunkSize: 64 * 1024 });
  const large = await sendFile(server, file, { chunkSize: 8 * MIB });
  server.end();
  t.is((await received).length, 32 * MIB);
  t.true(small.syscalls >= 256, `${small.syscalls} calls of at most 64 KiB`);
  t.true(large.syscalls < small.syscalls);
  const other = await pair(t);
  for (const chunkSize of [0, 1.5, 2 ** 31, '1']) {
    await t.throwsAsync(sendFile(other.server, file, { chunkSize: chunkSize as number }), { message: /chunkSize/ });
  }
});

test.serial('cork and noDelay do not change the sent bytes', async (t) => {
  const directory = scratch(t);
  const file = patternFile(directory, 'file', 5000);
  for (const cork of [undefined, true, false]) {
    for (const path of [undefined, join(directory, `socket${cork}`)]) {
      const { server, client } = await pair(t, path);
      const received = readAll(client);
      const result = await sendFile(server, file, { cork, noDelay: true, head: 'x'.repeat(100), method: 'sendfile' });
      server.end();
      t.is((await received).length, 5100);
      t.is(result.method, 'sendfile');
    }
  }
  const { server } = await pair(t);
  await t.throwsAsync(sendFile(server, file, { cork: 1 as unknown as boolean }), { message: /cork/ });
  await t.throwsAsync(sendFile(server, file, { noDelay: 1 as unknown as boolean }), { message: /noDelay/ });
});

test.serial('sendFiles sends memory and files in order, gathered', async (t) => {
  const directory = scratch(t);
  const one = patternFile(directory, 'one', 100_000, 1);
  const two = patternFile(directory, 'two', 3000, 2);
  const handle = await open(one);
  t.teardown(() => handle.close());
  for (const method of ['auto', ...METHODS] as const) {
    const { server, client } = await pair(t);
    const received = readAll(client);
    const head = Buffer.from('head');
    const sending = sendFiles(
      server,
      [
        head,
        Buffer.from('er'),
        { file: one, offset: 5, length: 1000 },
        Buffer.from('--'),
        { file: handle },
        { file: two },
        Buffer.alloc(0),
      ],
      { method },
    );
    head.fill(0);
    const result = await sending;
    server.end();
    const all = [
      Buffer.from('header'),
      pattern(1005, 1).subarray(5),
      Buffer.from('--'),
      pattern(100_000, 1),
      pattern(3000, 2),
    ];
    t.is(sha256(await received), sha256(Buffer.concat(all)), method);
    t.is(result.bytes, Buffer.concat(all).length);
  }
  const { server, client } = await pair(t);
  const received = readAll(client);
  await t.throwsAsync(sendFiles(server, [Buffer.from('x'), { file: join(directory, 'none') }]), { code: 'ENOENT' });
  t.is((await sendFiles(server, [])).bytes, 0);
  server.end();
  t.is((await received).length, 0, 'nothing is sent if a file is missing');
  const other = await pair(t);
  await t.throwsAsync(sendFiles(other.server, ['text' as unknown as Buffer]), { message: /parts\[0\]/ });
});

test.serial('sendFiles sends a multipart/byteranges body', async (t) => {
  const file = patternFile(scratch(t), 'file', 10_000);
  const fd = openSync(file, 'r');
  const { server, client } = await pair(t);
  const received = readAll(client);
  const ranges = [
    [0, 10],
    [5000, 4000],
    [9999, 1],
  ] as const;
  const parts = ranges.flatMap(([offset, length]) => [
    Buffer.from(`\r\n--b\r\ncontent-range: bytes ${offset}-${offset + length - 1}/10000\r\n\r\n`),
    { file: fd, offset, length },
  ]);
  const { syscalls } = await sendFiles(server, [...parts, Buffer.from('\r\n--b--\r\n')]);
  server.end();
  const text = (await received).toString('latin1');
  for (const [offset, length] of ranges) {
    t.true(
      text.includes(
        pattern(10_000)
          .subarray(offset, offset + length)
          .toString('latin1'),
      ),
    );
  }
  t.true(text.endsWith('--b--\r\n'));
  t.true(syscalls < 20, `${syscalls}`);
});

test.serial('ranges of one open file are sent over several sockets at the same time', async (t) => {
  const size = 20 * MIB + 7;
  const file = patternFile(scratch(t), 'file', size);
  const handle = await open(file);
  t.teardown(() => handle.close());
  for (const method of METHODS) {
    const slices = sliceRanges(size, 7);
    const pieces = await Promise.all(
      slices.map(async (slice) => {
        const { server, client } = await pair(t);
        const received = readAll(client);
        await sendFile(server, handle, { ...slice, method });
        server.end();
        return received;
      }),
    );
    t.is(sha256(Buffer.concat(pieces)), sha256(pattern(size)), method);
  }
  const { buffer } = await handle.read(Buffer.alloc(4), 0, 4);
  t.deepEqual(buffer, pattern(4), 'the position of the descriptor is unchanged');
});

test('sliceRanges divides a size into ranges', (t) => {
  t.deepEqual(sliceRanges(10, 3), [
    { offset: 0, length: 4 },
    { offset: 4, length: 3 },
    { offset: 7, length: 3 },
  ]);
  t.deepEqual(sliceRanges(2, 5), [
    { offset: 0, length: 1 },
    { offset: 1, length: 1 },
  ]);
  t.deepEqual(sliceRanges(0, 5), []);
  t.throws(() => sliceRanges(-1, 1), { code: 'ERR_ZEROSEND_OUT_OF_RANGE', message: /invalid size -1/ });
  t.throws(() => sliceRanges(1, 0), { code: 'ERR_ZEROSEND_OUT_OF_RANGE', message: /invalid count 0/ });
  t.throws(() => sliceRanges(1, 1.5), { code: 'ERR_ZEROSEND_OUT_OF_RANGE' });
});

const traced = serialTestWith('strace');

/** The system calls `calls` of a process that sends `file` over a new connection, one per line. */
function trace(t: ExecutionContext, file: string, options: SendFileOptions, calls: string): string[] {
  const program = `
    import { createServer, connect } from 'node:net';
    import { sendFile } from '${import.meta.resolve('zerosend')}';
    const server = createServer(async (socket) => {
      await sendFile(socket, ${JSON.stringify(file)}, ${JSON.stringify(options)});
      socket.end();
      server.close();
    }).listen(0, '127.0.0.1', () => connect(server.address().port, '127.0.0.1').resume());
  `;
  const log = join(scratch(t), 'trace');
  const node = [process.execPath, '--input-type=module', '-e', program];
  const { status, stderr } = spawnSync('strace', ['-f', '-o', log, '-e', `trace=${calls}`, ...node]);
  t.is(status, 0, String(stderr));
  return readFileSync(log, 'utf8').split('\n');
}

traced('strace: each method makes its system calls', (t) => {
  const file = patternFile(scratch(t), 'file', 8 * MIB);
  // The calls that send the bytes of the file.
  const carriers: Record<(typeof METHODS)[number], RegExp> = {
    sendfile: /sendfile\(/,
    splice: /[^m]splice\(/,
    mmap: /sendmsg\(/,
    'read-write': /sendmsg\(/,
    vmsplice: /vmsplice\(/,
  };
  for (const method of METHODS) {
    const lines = trace(t, file, { method }, 'sendfile,splice,vmsplice,sendmsg,pread64,preadv2,mmap,tee,write,writev');
    const carried = (pattern: RegExp) =>
      lines
        .filter((line) => pattern.test(line))
        .reduce((sum, line) => sum + Math.max(0, Number(/= (\d+)$/.exec(line)?.[1] ?? 0)), 0);
    t.true(carried(carriers[method]) >= 0.95 * 8 * MIB, `${method}: ${carried(carriers[method])}`);
    const read = carried(/pread(64|v2)\(/);
    t.is(read >= 7 * MIB, method === 'read-write', `${method} reads ${read}`);
    if (method === 'vmsplice') t.true(carried(/[^m]splice\(/) >= 0.95 * 8 * MIB);
    if (method === 'mmap') t.true(lines.some((line) => /mmap\(NULL, \d+, PROT_READ, MAP_SHARED/.test(line)));
  }
});

traced('strace: cork and noDelay set their socket options', (t) => {
  const file = patternFile(scratch(t), 'file', 5000);
  const calls = (options: SendFileOptions) => {
    const lines = trace(t, file, { method: 'sendfile', head: 'head', ...options }, 'setsockopt,sendmsg');
    return (pattern: RegExp) => lines.filter((line) => pattern.test(line)).length;
  };
  const unset = calls({});
  t.is(unset(/MSG_MORE/), 1, 'the header, before the file');
  t.is(unset(/TCP_CORK|TCP_NODELAY/), 0);
  const corked = calls({ cork: true });
  t.true(corked(/TCP_CORK, \[1\]/) >= 1);
  t.is(corked(/TCP_CORK, \[1\]/), corked(/TCP_CORK, \[0\]/), 'no socket stays corked');
  const uncorked = calls({ cork: false, noDelay: true });
  t.is(uncorked(/MSG_MORE|TCP_CORK/), 0);
  t.is(uncorked(/TCP_NODELAY, \[1\]/), 1);
});
