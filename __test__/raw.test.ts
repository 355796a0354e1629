/** Pipes, single system calls, memory passed to the kernel, and receiving into files. */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';

import test from 'ava';
import {
  allocPages,
  Pipe,
  pipeStatistics,
  receiveFile,
  sendFile,
  sendfile,
  sendPages,
  splice,
  tee,
  vmsplice,
  type ZerosendError,
} from 'zerosend';

import { openDescriptors, pattern, patternFile, scratch, settled, sha256, until } from './support/files.js';
import { pair, readAll, readExactly } from './support/wire.js';

const MIB = 1024 * 1024;
const fdOf = (socket: object) => (socket as { _handle: { fd: number } })._handle.fd;

test.serial('Pipe: size, resize, available, close', async (t) => {
  const before = openDescriptors();
  const pipe = new Pipe();
  t.is(pipe.size, 65_536);
  t.is(pipe.resize(100_000), 131_072);
  t.is(pipe.available, 0);
  t.is(vmsplice(pipe, Buffer.from('hello')), 5);
  t.is(pipe.available, 5);
  t.true(pipe.readFd >= 0 && pipe.writeFd >= 0 && !pipe.closed);
  const { writeFd } = pipe;
  pipe.close('write');
  pipe.close('write');
  t.is(pipe.writeFd, -1);
  t.throws(() => vmsplice(writeFd, Buffer.from('x')), { code: 'EBADF' });
  pipe.close();
  pipe.close();
  t.true(pipe.closed);
  t.is(pipe.readFd, -1);
  for (const act of [() => pipe.size, () => pipe.available, () => pipe.resize(4096), () => splice(pipe, 1, 1)]) {
    t.throws(act, { code: 'ERR_ZEROSEND_CLOSED' });
  }
  await settled(t, before);
});

test.serial('Pipe: invalid sizes are refused', (t) => {
  const pipe = new Pipe({ size: 4096 });
  t.teardown(() => pipe.close());
  t.is(pipe.size, 4096);
  for (const size of [0, -1, 1.5, 2 ** 31]) {
    t.throws(() => new Pipe({ size }), {
      code: 'ERR_ZEROSEND_OUT_OF_RANGE',
      message: new RegExp(`invalid size ${size}:`),
    });
  }
  t.throws(() => new Pipe({ size: '1' as unknown as number }), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT' });
  pipe.resize(MIB);
  vmsplice(pipe, Buffer.alloc(100_000));
  t.throws(() => pipe.resize(4096), { code: 'EBUSY', message: /./ });
});

test('an unreferenced pipe is closed after garbage collection', (t) => {
  const program = `
    import { readdirSync } from 'node:fs';
    import { setTimeout } from 'node:timers/promises';
    import { Pipe } from '${import.meta.resolve('zerosend')}';
    new Pipe().close();
    const count = () => readdirSync('/proc/self/fd').length;
    const before = count();
    (() => { for (let at = 0; at < 100; at++) new Pipe(); })();
    if (count() < before + 200) throw new Error('not made');
    for (let at = 0; at < 50 && count() > before; at++) { gc(); await setTimeout(10); }
    console.log(count() - before);
  `;
  const { stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', program]);
  t.is(String(stdout).trim(), '0', String(stderr));
});

/** Runs a program as an unprivileged user, because root has no limits of pipes. Returns its output, parsed as JSON. */
function unprivileged(program: string): Record<string, unknown> {
  const become = process.getuid?.() === 0 ? 'process.setuid(65534);' : '';
  const whole = `const { Pipe, pipeStatistics, sendFile } = await import('${import.meta.resolve('zerosend')}'); ${become} ${program}`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', whole]);
  if (String(stdout) === '') throw new Error(String(stderr));
  return JSON.parse(String(stdout));
}

test('a pipe larger than /proc/sys/fs/pipe-max-size is made smaller', (t) => {
  const max = Number(readFileSync('/proc/sys/fs/pipe-max-size', 'utf8'));
  const seen = unprivileged(`
    const pipe = new Pipe();
    let error;
    try { pipe.resize(${max * 2}); } catch (thrown) { error = thrown; }
    const { code, syscall } = error;
    console.log(JSON.stringify({ code, syscall, size: pipe.size, made: new Pipe({ size: ${max * 2} }).size }));
  `);
  t.like(seen, { code: 'EPERM', syscall: 'fcntl', size: 65_536 });
  t.true((seen.made as number) >= 65_536 && (seen.made as number) <= max, `${seen.made} of ${max}`);
});

test('above the quota of pipe pages, pipes are smaller and counted, and transfers succeed', (t) => {
  const directory = scratch(t);
  const file = patternFile(directory, 'file', 300_000);
  chmodSync(directory, 0o755);
  const seen = unprivileged(
    `
    const { createHash } = await import('node:crypto');
    const { connect, createServer } = await import('node:net');
    const pipes = Array.from({ length: 100 }, () => new Pipe({ size: 1048576 }));
    const { small } = pipeStatistics();
    const server = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const accepted = new Promise((resolve) => server.once('connection', resolve));
    const client = connect(server.address().port, '127.0.0.1');
    const socket = await accepted;
    const hash = createHash('sha256');
    client.on('data', (bytes) => hash.update(bytes));
    const ended = new Promise((resolve) => client.once('end', resolve));
    const sent = await sendFile(socket, FILE, { method: 'splice' });
    socket.end();
    await ended;
    server.close();
    const { method, bytes } = sent;
    const [first, last] = [pipes[0].size, pipes.at(-1).size];
    console.log(JSON.stringify({ first, last, small, method, bytes, hash: hash.digest('hex'), after: pipeStatistics().small }));
  `.replace('FILE', JSON.stringify(file)),
  );
  t.is(seen.first, MIB);
  t.true((seen.last as number) < MIB && (seen.small as number) > 0, JSON.stringify(seen));
  t.like(seen, { method: 'splice', bytes: 300_000, hash: sha256(pattern(300_000)) });
  t.true((seen.after as number) > (seen.small as number), 'the pipe of the transfer is counted');
});

test.serial('splice: file to pipe to socket to pipe to file', async (t) => {
  const directory = scratch(t);
  const file = patternFile(directory, 'from', 40_000);
  const from = await open(file);
  const to = await open(join(directory, 'to'), 'w+');
  const pipe = new Pipe();
  const { server, client } = await pair(t);
  client.pause();
  t.teardown(async () => {
    await from.close();
    await to.close();
    pipe.close();
  });
  t.is(splice(pipe, server, 10), null, 'an empty pipe: EAGAIN');
  t.is(splice(from, pipe, 40_000, { fromOffset: 100, more: true, move: true }), 39_900);
  t.is(pipe.available, 39_900);
  t.is(splice(pipe, server, 50_000), 39_900);
  const receiving = new Pipe();
  t.teardown(() => receiving.close());
  let moved = 0;
  while (moved < 39_900) {
    const count = splice(fdOf(client), receiving, 65_536);
    if (count === null) await new Promise((resolve) => setTimeout(resolve, 1));
    else t.is(splice(receiving, to, count, { toOffset: 10 + moved }), count);
    moved += count ?? 0;
  }
  t.is(splice(fdOf(client), receiving, 10), null, 'no bytes have arrived: EAGAIN');
  t.deepEqual(readFileSync(join(directory, 'to')).subarray(10), pattern(40_000).subarray(100));
  // Without an offset the position is used, and moves.
  t.is(splice(from, pipe, 10), 10);
  t.is(splice(from, pipe, 10), 10);
  t.is(splice(pipe, to, 20), 20);
  t.deepEqual(readFileSync(join(directory, 'to')).subarray(0, 20), pattern(20));
  t.is(splice(from, pipe, 10, { fromOffset: 40_000 }), 0, 'the end');
  server.end();
  await until(() => splice(fdOf(client), receiving, 10) === 0, 2000, 'the end of the socket');
});

test.serial('tee does not consume the bytes', (t) => {
  const [one, two, three] = [new Pipe(), new Pipe(), new Pipe({ size: 4096 })];
  t.teardown(() => [one, two, three].forEach((pipe) => void pipe.close()));
  t.is(tee(one, two, 10), null);
  vmsplice(one, pattern(20_000));
  t.is(tee(one, two, 100_000), 20_000);
  t.is(one.available, 20_000);
  t.is(two.available, 20_000);
  const part = tee(one, three, 100_000) as number;
  t.true(part > 0 && part < 20_000, 'a part that fits into the pipe');
  t.is(tee(one, three, 100_000), null, 'full: EAGAIN');
  one.close('write');
  splice(one, openSync('/dev/null', 'w'), 20_000);
  t.is(tee(one, two, 10), 0, 'the end');
});

test.serial('vmsplice: copies, gifts and invalid buffers', (t) => {
  const pipe = new Pipe();
  t.teardown(() => pipe.close());
  const buffer = Buffer.from('abc');
  t.is(vmsplice(pipe, [buffer, Buffer.from('def')]), 6);
  buffer.fill(0);
  const out = join(scratch(t), 'out');
  const fd = openSync(out, 'w+');
  t.teardown(() => closeSync(fd));
  t.is(splice(pipe, fd, 100), 6);
  t.is(readFileSync(out, 'latin1'), 'abcdef', 'later writes have no effect');
  const pages = allocPages(8192);
  pages.fill('p');
  const { buffer: memory } = pages;
  t.is(vmsplice(pipe, pages, { gift: true }), 8192);
  t.is(memory.byteLength, 0, 'detached during the call');
  t.is(pages.length, 0);
  t.is(pipe.available, 8192);
  const more = allocPages(4096);
  t.is(vmsplice(pipe, more, { gift: true }), null, 'the pipe is not empty');
  t.is(more.length, 4096);
  for (const ordinary of [Buffer.alloc(4096), Buffer.from('x'), new Uint8Array(4096)]) {
    t.throws(() => vmsplice(pipe, ordinary, { gift: true }), {
      code: 'ERR_ZEROSEND_INVALID_ARGUMENT',
      message: /allocPages/,
    });
  }
  t.throws(() => vmsplice(pipe, [more, more], { gift: true }), { message: /different allocPages/ });
  t.throws(() => vmsplice(pipe, Array(17).fill(buffer)), { message: /up to 16/ });
});

test.serial('sendfile: one call, from an offset', async (t) => {
  const file = await open(patternFile(scratch(t), 'file', 10_000));
  t.teardown(() => file.close());
  const { server, client } = await pair(t);
  t.is(sendfile(server, file, 100, 50), 50);
  t.is(sendfile(server, file, 9990, 50), 10);
  t.is(sendfile(server, file, 10_000, 50), 0);
  t.deepEqual(
    await readExactly(client, 60),
    Buffer.concat([pattern(150).subarray(100), pattern(10_000).subarray(9990)]),
  );
  client.pause();
  let count: number | null = 0;
  while (count !== null) count = sendfile(server, file, 0, 10_000);
  t.is(count, null, 'EAGAIN: the socket is full');
  client.destroy();
  await once(server, 'close').catch(() => {});
  t.throws(() => sendfile(server, file, 0, 10), { code: 'ERR_ZEROSEND_CLOSED' });
});

test.serial('invalid combinations are refused, and the error names the rule', async (t) => {
  const directory = scratch(t);
  const path = patternFile(directory, 'file', 100);
  const file = openSync(path, 'r');
  const other = openSync(join(directory, 'other'), 'w+');
  const append = openSync(join(directory, 'append'), 'a');
  const [pipe, second] = [new Pipe(), new Pipe()];
  t.teardown(() => {
    for (const fd of [file, other, append]) closeSync(fd);
    pipe.close();
    second.close();
  });
  vmsplice(pipe, Buffer.from('hello'));
  const refused = (act: () => unknown, message: RegExp) =>
    t.throws(act, { code: 'ERR_ZEROSEND_INVALID_ARGUMENT', message });
  refused(() => splice(file, other, 10), /pipe/);
  refused(() => splice(pipe, other, 10, { fromOffset: 0 }), /invalid `from` \(a pipe\): only files have a position/);
  refused(() => splice(file, pipe, 10, { toOffset: 0 }), /invalid `to` \(a pipe\): only files have a position/);
  refused(() => splice(pipe, append, 10), /O_APPEND/);
  refused(() => tee(file, pipe, 10), /pipe/);
  refused(() => tee(pipe, other, 10), /pipe/);
  refused(() => tee(pipe, pipe, 10), /same/);
  refused(() => splice(pipe, pipe, 10), /same/);
  refused(() => vmsplice(other, Buffer.from('x')), /pipe/);
  refused(() => sendfile(append, file, 0, 10), /O_APPEND/);
  refused(() => sendfile(other, pipe.readFd, 0, 10), /./);
  refused(() => splice('x' as unknown as number, pipe, 10), /invalid from 'x'/);
  refused(() => splice(-1, pipe, 10), /invalid from -1/);
  t.throws(() => splice(pipe, other, -1), { code: 'ERR_ZEROSEND_OUT_OF_RANGE' });
  t.throws(() => splice(pipe, other, 1.5), { code: 'ERR_ZEROSEND_OUT_OF_RANGE' });
  const error = t.throws(() => splice(99_999, pipe, 10)) as ZerosendError;
  t.like(error, { code: 'EBADF', errno: -9 });
  t.is(typeof error.syscall, 'string');
  t.is(splice(pipe, other, 10), 5, 'the bytes are still in the pipe');
});

test.serial(
  'sendPages: a gift is detached at the call, and later changes of a copied buffer are not sent',
  async (t) => {
    // The first transfer leaves its pipe in the pool.
    const first = await pair(t);
    first.client.resume();
    await sendPages(first.server, Buffer.from('x'));
    first.client.destroy();
    first.server.destroy();
    const before = openDescriptors();
    for (const gift of [true, false]) {
      const { server, client } = await pair(t);
      const received = readAll(client);
      const pages = allocPages(3 * MIB + 5);
      t.is(pages.length, 3 * MIB + 5);
      pattern(pages.length).copy(pages);
      const sending = sendPages(server, pages, { gift });
      t.is(pages.length, gift ? 0 : 3 * MIB + 5);
      if (!gift) pages.fill(0);
      const result = await sending;
      t.like(result, { bytes: 3 * MIB + 5, method: 'vmsplice' });
      server.end();
      t.is(sha256(await received), sha256(pattern(3 * MIB + 5)));
      server.destroy();
    }
    const { server, client } = await pair(t);
    await t.throwsAsync(sendPages(server, Buffer.alloc(4096), { gift: true }), {
      code: 'ERR_ZEROSEND_INVALID_ARGUMENT',
      message: /allocPages/,
    });
    const given = allocPages(4096);
    client.resume();
    await sendPages(server, given, { gift: true });
    await t.throwsAsync(sendPages(server, given, { gift: true }), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT' });
    const cancelled = allocPages(64 * MIB);
    client.pause();
    const controller = new AbortController();
    const sending = sendPages(server, cancelled, { gift: true, signal: controller.signal });
    setTimeout(() => controller.abort(), 50);
    await t.throwsAsync(sending, { code: 'ABORT_ERR' });
    t.is(cancelled.length, 0, 'a cancelled gift is detached too');
    for (const bytes of [0, -1, 1.5]) t.throws(() => allocPages(bytes), { code: 'ERR_ZEROSEND_OUT_OF_RANGE' });
    server.destroy();
    client.destroy();
    await settled(t, before);
  },
);

test.serial(
  'receiveFile: from a socket to a path, a handle and a descriptor, without leaking descriptors',
  async (t) => {
    const directory = scratch(t);
    const size = 9 * MIB + 1;
    const first = await pair(t);
    first.server.end('x');
    await receiveFile(first.client, join(directory, 'first'));
    first.client.destroy();
    const before = openDescriptors();
    for (const kind of ['path', 'handle', 'fd'] as const) {
      const { server, client } = await pair(t);
      const path = join(directory, kind);
      const handle = kind === 'handle' ? await open(path, 'w') : undefined;
      const fd = kind === 'fd' ? openSync(path, 'w') : undefined;
      const progress: number[] = [];
      const receiving = receiveFile(client, handle ?? fd ?? path, {
        length: size,
        onProgress: (bytes) => progress.push(bytes),
      });
      server.write(pattern(size));
      server.write('rest');
      const result = await receiving;
      t.like(result, { bytes: size, method: 'splice' });
      t.is(progress.at(-1), size);
      t.is(sha256(readFileSync(path)), sha256(pattern(size)), kind);
      t.is((await readExactly(client, 4)).toString(), 'rest', 'bytes beyond the length are not read');
      await handle?.close();
      if (fd !== undefined) closeSync(fd);
      server.destroy();
      client.destroy();
    }
    await settled(t, before);
  },
);

test.serial('receiveFile over a Unix socket: bytes that Node has read already come first', async (t) => {
  const directory = scratch(t);
  const { server, client } = await pair(t, join(directory, 'socket'));
  server.write(pattern(100_000));
  client.once('readable', () => {});
  await until(() => client.readableLength > 0, 2000, 'bytes in Node');
  const head = client.read(5) as Buffer;
  const path = join(directory, 'file');
  const receiving = receiveFile(client, path, { length: 2 * MIB - 5 });
  server.write(pattern(2 * MIB).subarray(100_000));
  server.end('rest');
  t.is((await receiving).bytes, 2 * MIB - 5);
  t.is(sha256(Buffer.concat([head, readFileSync(path)])), sha256(pattern(2 * MIB)));
  t.is((await readAll(client)).toString(), 'rest');
});

test.serial('a file through a pipe into a file', async (t) => {
  const directory = scratch(t);
  const from = patternFile(directory, 'from', 3 * MIB + 5);
  const pipe = new Pipe();
  const receiving = receiveFile(pipe.readFd, join(directory, 'to'));
  t.is((await sendFile(pipe.writeFd, from)).bytes, 3 * MIB + 5);
  pipe.close('write');
  t.is((await receiving).bytes, 3 * MIB + 5);
  pipe.close();
  t.is(sha256(readFileSync(join(directory, 'to'))), sha256(pattern(3 * MIB + 5)));
});

test.serial('receiveFile: to the end of the stream, truncated, aborted, refused', async (t) => {
  const directory = scratch(t);
  const path = join(directory, 'file');
  const first = await pair(t);
  first.server.end(pattern(100_000));
  t.is((await receiveFile(first.client, path)).bytes, 100_000);
  t.deepEqual(readFileSync(path), pattern(100_000));

  const second = await pair(t);
  second.server.end('abc');
  const short = await t.throwsAsync(receiveFile(second.client, path, { length: 10 }), {
    code: 'ERR_ZEROSEND_TRUNCATED',
  });
  t.is((short as unknown as ZerosendError).bytes, 3);
  t.is(readFileSync(path, 'latin1'), 'abc', 'received bytes are kept');

  const third = await pair(t);
  third.server.write('abcdef');
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 50);
  const cancelled = await t.throwsAsync(receiveFile(third.client, path, { signal: controller.signal }), {
    code: 'ABORT_ERR',
  });
  t.is((cancelled as unknown as ZerosendError).bytes, 6);

  const fourth = await pair(t);
  writeFileSync(path, '');
  const append = openSync(path, 'a');
  t.teardown(() => closeSync(append));
  await t.throwsAsync(receiveFile(fourth.client, append), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT', message: /append/ });
  await t.throwsAsync(receiveFile(fourth.client, directory), { code: 'EISDIR' });
  await t.throwsAsync(receiveFile(fourth.client, join(directory, 'no', 'file')), { code: 'ENOENT' });
  await t.throwsAsync(receiveFile(fourth.client, path, { timeout: 50 }), { code: 'ERR_ZEROSEND_TIMEOUT' });
  const waiting = receiveFile(fourth.client, path, { length: 10 });
  fourth.client.destroy();
  await t.throwsAsync(waiting, { code: 'ERR_ZEROSEND_CLOSED' });
});

test('pipes are counted', (t) => {
  const { made } = pipeStatistics();
  new Pipe().close();
  t.is(pipeStatistics().made, made + 1);
});
