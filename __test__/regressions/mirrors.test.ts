/** Regressions of the mirrors of proxies and the file sinks of splitters. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import test, { type ExecutionContext } from 'ava';
import { createProxy, createSplitter, Pipe, type ProxyMirror, type Relay } from 'zerosend';

import { fuse, mount } from '../support/faultfs.js';
import { scratch, until } from '../support/files.js';
import { mixable, small, smallDirectory, streamBytes, streamId, streamParts, unmix } from '../support/streams.js';
import { portOf, readAll } from '../support/wire.js';

const MAIN = new URL('../../dist/lib/cli/main.js', import.meta.url).pathname;

/** A server that responds with the result of `answer` for the bytes that it has received. */
async function serve(
  t: ExecutionContext,
  answer: (received: Buffer) => Buffer = () => Buffer.alloc(0),
): Promise<number> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    const received: Buffer[] = [];
    socket.on('error', () => {});
    socket.on('data', (bytes) => received.push(bytes));
    socket.on('end', () => socket.end(answer(Buffer.concat(received))));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return portOf(server);
}

async function proxyTo(t: ExecutionContext, target: number, mirror: ProxyMirror[], workers = 1): Promise<Relay> {
  const proxy = await createProxy({ target, mirror, workers });
  t.teardown(() => proxy.close({ drain: 0 }));
  return proxy;
}

function connect(proxy: Relay): net.Socket {
  const socket = net.connect({ port: 'port' in proxy.address ? proxy.address.port : 0, host: '127.0.0.1' });
  socket.on('error', () => {});
  return socket;
}

/** Sends bytes and returns the response. */
async function exchange(proxy: Relay, bytes: Buffer): Promise<Buffer> {
  const socket = connect(proxy);
  socket.end(bytes);
  return readAll(socket);
}

const idle = (proxy: Relay) => until(() => proxy.stats().connections === 0, 20_000, 'the end of all connections');

test('two directions, two proxies and another process append to one file: each byte is in it once', async (t) => {
  const file = join(scratch(t), 'all');
  // The response has the tag of another stream.
  const target = await serve(t, (received) => mixable(((received[0] ?? 0) >>> 4) + 5, received.length));
  const mirror: ProxyMirror[] = (['up', 'down'] as const).map((direction) => ({ file, direction, policy: 'block' }));
  const proxies = [await proxyTo(t, target, mirror, 2), await proxyTo(t, target, mirror, 2)];
  const other = spawn(process.execPath, [
    '-e',
    `const { appendFileSync } = require('node:fs');
     for (let at = 0; at < 2000; at++) appendFileSync(${JSON.stringify(file)}, Buffer.alloc(100, 0xf0 | at % 16));`,
  ]);
  const sizes = [700_000, 900_000, 1_100_000, 300_000];
  await Promise.all(sizes.map((size, at) => exchange(proxies[at % 2] as Relay, mixable(at + 1, size))));
  if (other.exitCode === null) await once(other, 'exit');
  for (const proxy of proxies) {
    await idle(proxy);
    t.like(proxy.stats(), { dropped: 0, mirrorFailures: 0 });
  }
  const streams = unmix(readFileSync(file));
  for (const [at, size] of sizes.entries()) {
    for (const id of [at + 1, at + 6]) t.true(streams.get(id)?.equals(mixable(id, size)), `stream ${id}`);
  }
  t.is(streams.get(15)?.length, 200_000);
  t.is(streams.size, 2 * sizes.length + 1);
});

test('a file that is copied and truncated is continued from its start', async (t) => {
  const directory = scratch(t);
  const file = join(directory, 'all');
  const proxy = await proxyTo(t, await serve(t), [{ file, policy: 'block' }]);
  const socket = connect(proxy);
  const all = streamBytes(1, 1_000_000);
  const copies: Buffer[] = [];
  for (let at = 0; at < 10; at++) {
    socket.write(all.subarray(at * 100_000, (at + 1) * 100_000));
    await until(() => proxy.stats().mirrored === (at + 1) * 100_000);
    copyFileSync(file, `${file}.1`);
    truncateSync(file);
    copies.push(readFileSync(`${file}.1`));
  }
  t.true(Buffer.concat(copies).equals(all));
  socket.end();
  await idle(proxy);
});

test('a splitter writes all bytes twice to a file that is given twice, and once to a FIFO', async (t) => {
  const directory = scratch(t);
  const file = join(directory, 'twice');
  writeFileSync(file, 'earlier content');
  const fifo = join(directory, 'fifo');
  execFileSync('mkfifo', [fifo]);

  const source = new Pipe();
  const second = spawn('cat', [fifo]);
  const copied = readAll(second.stdout);
  const bytes = mixable(1, 1_000_000);
  let splitter: Awaited<ReturnType<typeof createSplitter>> | undefined;
  while (splitter === undefined) {
    splitter = await createSplitter(source, [{ file }, { file }, { file: fifo }]).catch(async (error) => {
      if (error.code !== 'ENXIO') throw error;
      await delay(5);
      return undefined;
    });
  }
  await feed(source, bytes);
  const { sinks } = await splitter.finished;
  t.like(sinks, { 0: { bytes: 1_000_000 }, 1: { bytes: 1_000_000 }, 2: { bytes: 1_000_000 } });
  const written = readFileSync(file);
  t.is(written.length, 2_000_000);
  const fd = openSync(file, 'r+');
  t.teardown(() => closeSync(fd));
  await t.throwsAsync(
    createSplitter(new Pipe(), [{ file: fd }, { file: fd }]).then(({ finished }) => finished),
    {
      code: 'ERR_ZEROSEND_INVALID_ARGUMENT',
      message: /sinks 0 and 1 write to the same file/,
    },
  );
  const counts = (of: Buffer) => {
    const sums = new Array<number>(256).fill(0);
    for (const byte of of) sums[byte] = (sums[byte] ?? 0) + 1;
    return sums;
  };
  t.deepEqual(counts(written), counts(Buffer.concat([bytes, bytes])));
  t.true((await copied).equals(bytes));
});

/** Writes to a pipe from another process, whose exit closes the pipe. */
async function feed(pipe: Pipe, bytes: Buffer): Promise<void> {
  const cat = spawn('cat', [], { stdio: ['pipe', pipe.writeFd, 'inherit'] });
  pipe.close('write');
  cat.stdin?.end(bytes);
  await once(cat, 'exit');
}

test('a stream that is reset leaves a prefix in its file', async (t) => {
  const directory = scratch(t);
  const server = net.createServer((socket) => socket.on('error', () => {}).resume()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const proxy = await proxyTo(t, portOf(server), [{ file: join(directory, 'm-{n}'), policy: 'block' }], 4);
  const sent = streamBytes(0, 400_000).length;
  const one = async (id: number) => {
    const socket = connect(proxy);
    await once(socket, 'connect');
    const bytes = streamBytes(id, sent);
    for (let at = 0; at < sent && !socket.destroyed; at += 40_000) {
      socket.write(bytes.subarray(at, at + 40_000));
      await delay(id % 3);
      if (at >= (id % 10) * 40_000) socket.resetAndDestroy();
    }
  };
  for (let round = 0; round < 10; round++) {
    await Promise.all(Array.from({ length: 40 }, (_, at) => one(1 + round * 40 + at)));
  }
  await idle(proxy);
  const total = () => readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);
  await until(() => total() === proxy.stats().mirrored);
  t.is(proxy.stats().dropped, 0);
  const seen = new Set<number>();
  for (const name of readdirSync(directory)) {
    const bytes = readFileSync(join(directory, name));
    const id = streamId(bytes);
    t.false(seen.has(id));
    seen.add(id);
    if (!bytes.equals(streamBytes(id, bytes.length))) t.fail(`${name} is not a prefix of stream ${id}`);
  }
  t.true(seen.size > 100);
});

test('each connection has a separate file, also after a restart and in another proxy', async (t) => {
  const directory = scratch(t);
  const target = await serve(t);
  const file = join(directory, 'm-{n}');
  const first = await proxyTo(t, target, [{ file, policy: 'block' }], 16);
  const CONNECTIONS = 1000;
  let next = 0;
  const client = async (proxy: Relay) => {
    while (next < CONNECTIONS) {
      next += 1;
      await exchange(proxy, streamBytes(next, 64));
    }
  };
  await Promise.all(Array.from({ length: 64 }, () => client(first)));
  await idle(first);
  const names = () => readdirSync(directory);
  t.deepEqual(names().sort(), Array.from({ length: CONNECTIONS }, (_, at) => `m-${at + 1}`).sort());
  await first.close();
  // Two proxies at the same time.
  const later = [
    await proxyTo(t, target, [{ file, policy: 'block' }], 4),
    await proxyTo(t, target, [{ file, policy: 'block' }], 4),
  ];
  await Promise.all(
    Array.from({ length: 40 }, (_, at) => exchange(later[at % 2] as Relay, streamBytes(CONNECTIONS + 1 + at, 64))),
  );
  for (const proxy of later) await idle(proxy);
  const ids = names().map((name) => {
    const bytes = readFileSync(join(directory, name));
    const id = streamId(bytes);
    t.true(bytes.equals(streamBytes(id, 64)), name);
    return id;
  });
  t.is(ids.length, CONNECTIONS + 40);
  t.is(new Set(ids).size, CONNECTIONS + 40);
});

test('file names have the variables {n}, {id}, {client} and {time}', async (t) => {
  const directory = scratch(t);
  const target = await serve(t, (received) => received);
  const name = (text: string) => join(directory, text);
  const proxy = await proxyTo(t, target, [
    { file: name('up-{n}-{id}'), policy: 'block' },
    { file: name('down-{n}-{id}'), direction: 'down', policy: 'block' },
    { file: name('{client}'), policy: 'block', mode: 0o640 },
    { file: name('at-{time}'), policy: 'block' },
  ]);
  const socket = connect(proxy);
  socket.end(streamBytes(7, 1000));
  await once(socket, 'connect');
  const { localPort } = socket;
  t.is((await readAll(socket)).length, 1000);
  await idle(proxy);
  const files = readdirSync(directory).sort();
  t.is(files.length, 4);
  const [client = '', at = '', down = '', up = ''] = files;
  t.is(client, `127.0.0.1_${localPort}`);
  t.regex(at, /^at-\d{8}T\d{6}\.\d{3}Z$/);
  t.regex(up, /^up-1-[0-9a-f]{16}-1$/);
  t.is(down, up.replace('up', 'down'));
  for (const one of files) t.true(readFileSync(name(one)).equals(streamBytes(7, 1000)));
  t.is(statSync(name(client)).mode & 0o777, 0o640);
  t.is(statSync(name(up)).mode & 0o777, 0o600);
  await t.throwsAsync(createProxy({ target, mirror: [{ file: name('{pid}') }] }), {
    code: 'ERR_ZEROSEND_INVALID_ARGUMENT',
    message: /unknown variable \{pid\} in file .*: use \{n\}, \{time\}, \{client\} or \{id\}/,
  });
  await t.throwsAsync(createProxy({ target, mirror: [{ file: name('x'), mode: 0o1777 }] }), {
    message: /invalid mirror\[0\]\.mode 1023/,
  });
});

small('bytes lost to a full disk are counted, and later bytes are written', async (t) => {
  const directory = smallDirectory(t, 'size=1m');
  const file = join(directory, 'all');
  writeFileSync(join(directory, 'filler'), Buffer.alloc(400_000));
  const proxy = await proxyTo(t, await serve(t), [{ file }]);
  const socket = connect(proxy);
  const all = streamBytes(3, 3_000_000);
  const sum = () => proxy.stats().mirrored + proxy.stats().dropped;
  const send = async (from: number, to: number) => {
    socket.write(all.subarray(from, to));
    await until(() => sum() === to);
  };
  for (let at = 0; at < 1_500_000; at += 100_000) await send(at, at + 100_000);
  t.true(proxy.stats().dropped > 0);
  rmSync(join(directory, 'filler'));
  await send(1_500_000, 1_600_000);
  socket.end();
  await idle(proxy);
  const bytes = readFileSync(file);
  const parts = streamParts(bytes, 3);
  t.is(bytes.length, proxy.stats().mirrored);
  t.is(sum(), 1_600_000);
  t.is(parts[0]?.[0], 0);
  const [from = 0, to] = parts.at(-1) ?? [];
  // Records begin with the same bytes, so the start of the range may be up to 16 bytes off.
  t.true(from < 1_500_016 && to === 1_600_000, String(parts));
  t.is(proxy.stats().mirrorFailures, 1);
});

fuse('a disk that hangs delays its mirror and no other stream of the worker', async (t) => {
  const faults = await mount(t);
  const target = await serve(t, (received) => received);
  const file = join(faults.path, 'slow');
  const proxy = await proxyTo(t, target, [{ file, direction: 'up' }]);
  const other = await proxyTo(t, target, [{ file }]);
  await faults.set('write', { hang: true }, '/slow');
  const mirrored = connect(proxy);
  mirrored.write(streamBytes(1, 100_000));
  await faults.held('write');
  // These would wait if the worker waited for the disk.
  for (let at = 0; at < 20; at++) {
    mirrored.write(streamBytes(1, 100_000, (at + 1) * 100_000));
    t.true((await exchange(proxy, streamBytes(2, 50_000))).equals(streamBytes(2, 50_000)));
  }
  await until(() => proxy.stats().dropped > 500_000);
  const { waiting } = await faults.count('write');
  t.true(waiting >= 1);
  // Another proxy with the same file closes without waiting for the disk.
  await exchange(other, streamBytes(3, 50_000));
  await other.close({ drain: 0 });
  t.is(other.stats().mirrored + other.stats().dropped, 50_000);
  await faults.clear();
  mirrored.end();
  await idle(proxy);
  const { mirrored: written, dropped } = proxy.stats();
  t.is(written + dropped, 2_100_000 + 20 * 50_000);
  await until(() => readFileSync(join(faults.backing, 'slow')).length >= written);
  const rest = readFileSync(join(faults.backing, 'slow')).length - written;
  t.true(rest === 0 || rest === other.stats().dropped);
});

fuse('a splitter drops bytes of a file on a disk that hangs', async (t) => {
  const faults = await mount(t);
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const outside = net.connect(portOf(server), '127.0.0.1');
  const [socket] = (await once(server, 'connection')) as [net.Socket];
  t.teardown(() => socket.destroy());
  const source = new Pipe();
  const file = join(faults.path, 'slow');
  await faults.set('write', { hang: true }, '/slow');
  const splitter = await createSplitter(source, [{ file }, socket], { policy: 'drop' });
  const bytes = streamBytes(9, 3_000_000);
  const received = readAll(outside);
  await feed(source, bytes);
  await faults.held('write');
  const { sinks } = await splitter.finished;
  t.is((sinks[0]?.bytes ?? 0) + (sinks[0]?.dropped ?? 0), bytes.length);
  t.is(sinks[1]?.bytes, bytes.length - (sinks[1]?.dropped ?? 0));
  t.is((await received).length, sinks[1]?.bytes as number);
  await faults.clear();
});

test('mirrors and sinks that cannot be opened are refused', async (t) => {
  const directory = scratch(t);
  const fifo = join(directory, 'fifo');
  execFileSync('mkfifo', [fifo]);
  const socket = net.createServer().listen(join(directory, 'socket'));
  await once(socket, 'listening');
  t.teardown(() => socket.close());
  const refused: Array<[string, object]> = [
    [fifo, { code: 'ENXIO', message: /no process reads this FIFO; start its reader first/ }],
    [directory, { code: 'EISDIR' }],
    [join(directory, 'socket'), { code: 'ENXIO', message: /this is a socket/ }],
    [join(directory, 'missing', 'file'), { code: 'ENOENT' }],
  ];
  for (const [file, error] of refused) {
    await t.throwsAsync(createProxy({ target: 1, mirror: [{ file }] }), error);
    await t.throwsAsync(createSplitter(new Pipe(), [{ file }]), error);
  }
});

test('a FIFO with a reader is a mirror', async (t) => {
  const fifo = join(scratch(t), 'fifo');
  execFileSync('mkfifo', [fifo]);
  const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
  t.teardown(() => closeSync(reader));
  const proxy = await proxyTo(t, await serve(t), [{ file: fifo, policy: 'block' }]);
  const read: Buffer[] = [];
  let done = false;
  const reading = (async () => {
    while (!done) {
      const buffer = Buffer.alloc(65_536);
      try {
        read.push(buffer.subarray(0, readSync(reader, buffer)));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      }
      await delay(0);
    }
  })();
  for (let id = 1; id <= 3; id++) {
    await exchange(proxy, streamBytes(id, 500_000));
    await idle(proxy);
  }
  await until(() => read.reduce((sum, bytes) => sum + bytes.length, 0) === 1_500_000);
  done = true;
  await reading;
  t.true(Buffer.concat(read).equals(Buffer.concat([1, 2, 3].map((id) => streamBytes(id, 500_000)))));
  t.like(proxy.stats(), { mirrored: 1_500_000, dropped: 0, mirrorFailures: 0 });
});

for (const [what, pipe] of [
  ['a pipe', true],
  ['a socket', false],
] as const) {
  test(`zerosend proxy --mirror /dev/stdout into ${what}`, async (t) => {
    const target = await serve(t);
    const socket = join(scratch(t), 'socket');
    const command = [process.execPath, MAIN, 'proxy', '-l', `unix:${socket}`, '-t', `127.0.0.1:${target}`];
    const mirror = ['--mirror', '/dev/stdout', '--mirror-policy', 'block'];
    // A shell makes a pipe; spawn() makes a Unix socket.
    const [program = '', ...args] = pipe
      ? ['sh', '-c', '"$@" | cat', 'sh', ...command, ...mirror]
      : [...command, ...mirror];
    const child = spawn(program, args, { detached: true, stdio: ['ignore', 'pipe', 'inherit'] });
    t.teardown(() => {
      try {
        process.kill(-(child.pid as number), 'SIGKILL');
      } catch {
        // The process has already exited.
      }
    });
    const output: Buffer[] = [];
    child.stdout.on('data', (bytes) => output.push(bytes));
    await until(() => existsSync(socket) && Buffer.concat(output).includes('\n'), 20_000, 'the proxy');
    const client = net.connect(socket);
    const bytes = streamBytes(4, 1_000_000);
    client.end(bytes);
    await readAll(client);
    await until(() => Buffer.concat(output).length >= bytes.length, 20_000, 'the mirror');
    const text = Buffer.concat(output);
    t.true(text.subarray(text.indexOf('\n') + 1).equals(bytes));
  });
}

test('a splitter to /dev/stdout does not truncate it', async (t) => {
  const file = join(scratch(t), 'out');
  const script = `
    import { createSplitter, Pipe } from 'zerosend';
    import { spawn } from 'node:child_process';
    console.log('before');
    const pipe = new Pipe();
    const splitter = await createSplitter(pipe, [{ file: '/dev/stdout' }]);
    spawn('echo', ['split'], { stdio: ['ignore', pipe.writeFd, 'inherit'] });
    pipe.close('write');
    await splitter.finished;
    console.log('after');`;
  const out = openSync(file, 'w');
  const cwd = new URL('../..', import.meta.url).pathname;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    cwd,
    stdio: ['ignore', out, 'inherit'],
  });
  closeSync(out);
  await once(child, 'exit');
  t.is(readFileSync(file, 'utf8'), 'before\nsplit\nafter\n');
});

test('a link to /dev/stdout writes to the standard output', async (t) => {
  const directory = scratch(t);
  const link = join(directory, 'log');
  symlinkSync('/dev/stdout', link);
  const socket = join(directory, 'socket');
  const target = await serve(t);
  const out = openSync(join(directory, 'out'), 'w');
  const args = [MAIN, 'proxy', '-l', `unix:${socket}`, '-t', `127.0.0.1:${target}`, '--mirror', link];
  const child = spawn(process.execPath, args, { stdio: ['ignore', out, 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  closeSync(out);
  const written = () => readFileSync(join(directory, 'out'), 'utf8');
  await until(() => written().endsWith('\n'), 20_000, 'the proxy');
  const before = written();
  const client = net.connect(socket);
  client.end('mirrored\n');
  await readAll(client);
  await until(() => written() === `${before}mirrored\n`);
  t.pass();
});

test('reopen() after a rename, after a deletion, and when the path cannot be opened', async (t) => {
  const file = join(scratch(t), 'all');
  const proxy = await proxyTo(t, await serve(t), [{ file, policy: 'block' }]);
  const socket = connect(proxy);
  let sent = 0;
  const send = async () => {
    socket.write(streamBytes(5, 50_000, sent));
    sent += 50_000;
    await until(() => proxy.stats().mirrored === sent);
  };
  const holds = (path: string, from: number, to: number) =>
    t.true(readFileSync(path).equals(streamBytes(5, to - from, from)), path);
  await send();
  renameSync(file, `${file}.1`);
  await send();
  holds(`${file}.1`, 0, 100_000);
  await proxy.reopen();
  await send();
  holds(`${file}.1`, 0, 100_000);
  holds(file, 100_000, 150_000);
  rmSync(file);
  await proxy.reopen();
  await send();
  holds(file, 150_000, 200_000);
  // The path cannot be opened, so the open file stays in use.
  renameSync(file, `${file}.2`);
  mkdirSync(file);
  await t.throwsAsync(proxy.reopen(), { code: 'EISDIR' });
  await send();
  holds(`${file}.2`, 150_000, 250_000);
  rmSync(file, { recursive: true });
  await proxy.reopen();
  await send();
  holds(file, 250_000, 300_000);
  socket.end();
  await proxy.close();
  await t.throwsAsync(proxy.reopen(), { code: 'ERR_ZEROSEND_CLOSED' });
});

small('reopen() in a directory that is full or read-only keeps the file', async (t) => {
  const directory = smallDirectory(t, 'nr_inodes=3');
  const file = join(directory, 'all');
  const proxy = await proxyTo(t, await serve(t), [{ file, policy: 'block' }]);
  const socket = connect(proxy);
  let sent = 0;
  const send = async () => {
    socket.write(streamBytes(6, 10_000, sent));
    sent += 10_000;
    await until(() => proxy.stats().mirrored === sent);
  };
  await send();
  writeFileSync(join(directory, 'last inode'), '');
  renameSync(file, `${file}.1`);
  await t.throwsAsync(proxy.reopen(), { code: 'ENOSPC' });
  await send();
  t.true(readFileSync(`${file}.1`).equals(streamBytes(6, sent)));
  socket.end();
});

test('reopen() opens the files of open connections again', async (t) => {
  const directory = scratch(t);
  const proxy = await proxyTo(t, await serve(t), [{ file: join(directory, 'm-{n}'), policy: 'block' }]);
  const socket = connect(proxy);
  socket.write(streamBytes(8, 1000));
  await until(() => proxy.stats().mirrored === 1000);
  renameSync(join(directory, 'm-1'), join(directory, 'rotated'));
  await proxy.reopen();
  socket.end(streamBytes(8, 1000, 1000));
  await idle(proxy);
  t.true(readFileSync(join(directory, 'rotated')).equals(streamBytes(8, 1000)));
  t.true(readFileSync(join(directory, 'm-1')).equals(streamBytes(8, 1000, 1000)));
});

test('zerosend proxy: SIGHUP reopens mirrors and reports failures', async (t) => {
  const directory = scratch(t);
  const file = join(directory, 'all');
  const socket = join(directory, 'socket');
  const target = await serve(t);
  const args = ['proxy', '-l', `unix:${socket}`, '-t', `127.0.0.1:${target}`, '--mirror', file, '--mirror-mode', '640'];
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  t.teardown(() => child.kill('SIGKILL'));
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
  await once(child.stdout, 'data');
  const client = net.connect(socket);
  await once(client, 'connect');
  client.write('one\n');
  await until(() => existsSync(file) && readFileSync(file, 'utf8') === 'one\n');
  t.is(statSync(file).mode & 0o777, 0o640);
  renameSync(file, `${file}.1`);
  child.kill('SIGHUP');
  await until(() => stderr.includes('files reopened'));
  client.write('two\n');
  await until(() => readFileSync(file, 'utf8') === 'two\n');
  renameSync(file, `${file}.2`);
  mkdirSync(file);
  child.kill('SIGHUP');
  await until(() => /cannot reopen a file, which stays in use: EISDIR/.test(stderr));
  client.end('three\n');
  await until(() => readFileSync(`${file}.2`, 'utf8') === 'two\nthree\n');
  t.is(readFileSync(`${file}.1`, 'utf8'), 'one\n');
  child.kill('SIGTERM');
  const [code] = await once(child, 'exit');
  t.is(code, 0);
  t.is(spawnSync(process.execPath, [MAIN, ...args.slice(0, -1), '999']).status, 2);
});

test('another process can append between the chunks of a mirror', async (t) => {
  const file = join(scratch(t), 'all');
  const proxy = await proxyTo(t, await serve(t), [{ file, policy: 'block' }]);
  t.is(statSync(file).mode & 0o777, 0o600);
  const socket = connect(proxy);
  for (let at = 0; at < 5; at++) {
    socket.write(`mirror ${at}\n`);
    await until(() => readFileSync(file, 'utf8').endsWith(`mirror ${at}\n`));
    appendFileSync(file, `other ${at}\n`);
  }
  const lines = Array.from({ length: 5 }, (_, at) => `mirror ${at}\nother ${at}\n`);
  t.is(readFileSync(file, 'utf8'), lines.join(''));
  socket.end();
});
