/** relay, createSplitter, pipeToFile, fileToPipe, and proxies with mirrors and target functions. */
import { once } from 'node:events';
import { open, readFile, writeFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { join } from 'node:path';
import tls from 'node:tls';

import test, { type ExecutionContext } from 'ava';
import {
  createProxy,
  createSplitter,
  fileToPipe,
  Pipe,
  type ProxyClient,
  pipeToFile,
  relay,
  type SplitSink,
  type ZerosendError,
} from 'zerosend';

import { openDescriptors, pattern, scratch, settled, sha256, until } from './support/files.js';
import { portOf, readAll } from './support/wire.js';

/** Both ends of a connection. */
async function pair(t: ExecutionContext): Promise<[net.Socket, net.Socket]> {
  const server = net.createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const outside = net.connect({ port: portOf(server), host: '127.0.0.1', allowHalfOpen: true });
  const [inside] = (await once(server, 'connection')) as [net.Socket];
  server.close();
  for (const socket of [outside, inside]) {
    socket.on('error', () => {});
    t.teardown(() => socket.destroy());
  }
  return [outside, inside];
}

/** The error of a promise that must reject. */
async function errorOf<T>(promise: Promise<T>): Promise<ZerosendError & { aToB: number; bToA: number }> {
  return promise.then(
    () => Promise.reject(new Error('the promise resolved')),
    (error) => error,
  );
}

test.serial('relay moves buffered and later bytes in both directions and leaves no descriptor open', async (t) => {
  const before = openDescriptors();
  for (const method of ['splice', 'read-write'] as const) {
    const [a, aInside] = await pair(t);
    const [b, bInside] = await pair(t);
    // Node has read these bytes, and no listener has taken them.
    a.write('early ');
    aInside.once('readable', () => {});
    await until(() => aInside.readableLength === 6);
    bInside.write('welcome ');
    const finished = relay(aInside, bInside, { method });
    const [up, down] = [pattern(3_000_000), pattern(2_000_000)];
    a.end(up);
    b.end(down);
    const [atB, atA] = await Promise.all([readAll(b), readAll(a)]);
    t.is(sha256(atB), sha256(Buffer.concat([Buffer.from('welcome early '), up])));
    t.is(sha256(atA), sha256(down));
    t.like(await finished, { aToB: 3_000_006, bToA: 2_000_000 });
    t.true(aInside.destroyed && bInside.destroyed);
  }
  await settled(t, before);
});

test('relay after CONNECT is a tunnel', async (t) => {
  const target = net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
  await once(target, 'listening');
  t.teardown(() => target.close());
  const ends: Array<Promise<unknown>> = [];
  const proxy = http.createServer();
  proxy.on('connect', (_request, socket: net.Socket, head: Buffer) => {
    const upstream = net.connect(portOf(target), '127.0.0.1');
    socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
    socket.unshift(head);
    ends.push(relay(socket, upstream));
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  t.teardown(() => proxy.close());
  const client = net.connect({ port: portOf(proxy), host: '127.0.0.1', allowHalfOpen: true });
  client.end('CONNECT echo:7 HTTP/1.1\r\nHost: echo:7\r\n\r\nsent at once');
  t.is((await readAll(client)).toString(), 'HTTP/1.1 200 Connection established\r\n\r\nsent at once');
  await Promise.all(ends);
});

test('relay names the socket that failed, and ends when a signal aborts or a socket is destroyed', async (t) => {
  {
    const [a, aInside] = await pair(t);
    const [b, bInside] = await pair(t);
    const finished = errorOf(relay(aInside, bInside));
    a.write('12345');
    await once(b, 'readable');
    b.resetAndDestroy();
    t.like(await finished, { code: 'ECONNRESET', side: 'b', aToB: 5, bToA: 0 });
    await until(() => a.destroyed);
  }
  {
    const [, aInside] = await pair(t);
    const [, bInside] = await pair(t);
    const controller = new AbortController();
    const finished = errorOf(relay(aInside, bInside, { signal: controller.signal }));
    setTimeout(() => controller.abort(), 20);
    t.like(await finished, { code: 'ABORT_ERR' });
  }
  {
    const [, aInside] = await pair(t);
    const [, bInside] = await pair(t);
    const finished = errorOf(relay(aInside, bInside));
    setTimeout(() => bInside.destroy(), 20);
    t.like(await finished, { code: 'ERR_ZEROSEND_CLOSED', side: 'b' });
  }
  {
    const [, aInside] = await pair(t);
    const [, bInside] = await pair(t);
    t.like(await errorOf(relay(aInside, bInside, { idleTimeout: 50 })), { code: 'ERR_ZEROSEND_TIMEOUT' });
  }
});

test('relay refuses TLS sockets, invalid descriptors and ended sockets', async (t) => {
  const [, socket] = await pair(t);
  const code = 'ERR_ZEROSEND_INVALID_ARGUMENT';
  const wrapped = new tls.TLSSocket(new net.Socket());
  await t.throwsAsync(relay(socket, wrapped), { code, message: /invalid b .* plain net.Socket.*pipeline/ });
  await t.throwsAsync(relay(-1, socket), { code, message: /invalid a -1/ });
  await t.throwsAsync(relay(socket, 1 as never, { method: 'x' as never }), { code, message: /invalid method 'x'/ });
  const [, ended] = await pair(t);
  ended.end();
  await t.throwsAsync(relay(ended, 0), { code: 'ERR_ZEROSEND_CLOSED', message: /the a socket was ended/ });
});

test('createSplitter: sockets, pipes and files receive the same bytes', async (t) => {
  const directory = scratch(t);
  const bytes = pattern(2_500_000);
  const from = join(directory, 'from');
  await writeFile(from, bytes);
  for (const kind of ['socket', 'file', 'pipe'] as const) {
    const [one, oneInside] = await pair(t);
    const pipe = new Pipe();
    const [file, handle] = [join(directory, `${kind}-1`), await open(join(directory, `${kind}-2`), 'w')];
    await handle.write('before ');
    const sinks: SplitSink[] = [oneInside, pipe, { file }, { file: handle }];
    const received = [readAll(one), pipeToFile(pipe, join(directory, `${kind}-3`))] as const;
    const feeding = new Pipe();
    const [source, sourceInside] = await pair(t);
    const splitter = await createSplitter(
      kind === 'socket' ? sourceInside : kind === 'file' ? { file: from } : feeding,
      sinks,
    );
    if (kind === 'socket') source.end(bytes);
    if (kind === 'pipe') {
      await fileToPipe(from, feeding);
      feeding.close('write');
    }
    const result = await splitter.finished;
    t.is(result.bytes, bytes.length);
    t.deepEqual(
      result.sinks,
      sinks.map(() => ({ bytes: bytes.length, dropped: 0 })),
    );
    await handle.close();
    t.is(sha256(await received[0]), sha256(bytes));
    await received[1];
    t.is(sha256(await readFile(file)), sha256(bytes));
    t.is(sha256(await readFile(join(directory, `${kind}-3`))), sha256(bytes));
    t.is(sha256((await readFile(join(directory, `${kind}-2`))).subarray(7)), sha256(bytes));
  }
});

test('createSplitter: a failed sink, a slow sink, close() and invalid arguments', async (t) => {
  {
    const [source, inside] = await pair(t);
    const [good, goodInside] = await pair(t);
    const [bad, badInside] = await pair(t);
    const splitter = await createSplitter(inside, [goodInside, badInside]);
    bad.resetAndDestroy();
    source.end('hello');
    const error = await errorOf(splitter.finished);
    t.is(error.side, 'sinks[1]');
    t.regex(error.code, /^(EPIPE|ECONNRESET)$/);
    good.destroy();
  }
  {
    const [source, inside] = await pair(t);
    const [good, goodInside] = await pair(t);
    const [, slowInside] = await pair(t);
    const splitter = await createSplitter(inside, [goodInside, slowInside], { policy: 'drop' });
    const received = readAll(good);
    for (let count = 0; count < 64; count++) {
      if (!source.write(pattern(262_144))) await once(source, 'drain');
    }
    source.end();
    const [first, slow] = (await splitter.finished).sinks;
    t.is((first?.bytes ?? 0) + (first?.dropped ?? 0), 64 * 262_144);
    t.is((await received).length, first?.bytes ?? -1);
    t.true((slow?.dropped ?? 0) > 1_000_000, `${slow?.dropped}`);
  }
  {
    const [, inside] = await pair(t);
    const [, sink] = await pair(t);
    const splitter = await createSplitter(inside, [sink]);
    splitter.close();
    t.is((await errorOf(splitter.finished)).code, 'ERR_ZEROSEND_CLOSED');
  }
  const [, socket] = await pair(t);
  await t.throwsAsync(createSplitter(socket, []), { message: /sinks .* at least one sink/ });
  await t.throwsAsync(createSplitter(socket, [1], { policy: 'x' as never }), { message: /invalid policy 'x'/ });
  await t.throwsAsync(createSplitter(socket, Array(15).fill(1)), { code: 'ERR_ZEROSEND_LIMIT' });
  await t.throwsAsync(createSplitter(socket, [{ file: '/nowhere/at/all' }]), { code: 'ENOENT' });
  const missing = await createSplitter({ file: '/nowhere/at/all' }, [socket]);
  t.like(await errorOf(missing.finished), { code: 'ENOENT', side: 'source' });
});

test('createProxy calls the target function for each connection', async (t) => {
  const target = net.createServer((socket) => socket.on('error', () => {}).end('here')).listen(0, '127.0.0.1');
  await once(target, 'listening');
  t.teardown(() => target.close());
  const clients: ProxyClient[] = [];
  const errors: string[] = [];
  const results: Array<() => unknown> = [
    () => 1,
    async () => `127.0.0.1:${portOf(target)}`,
    () => undefined,
    () => Promise.reject(new Error('no target')),
    () => 'nonsense',
  ];
  const proxy = await createProxy({
    workers: 1,
    target: (client) => {
      clients.push(client);
      return results[clients.length - 1]?.() as string;
    },
    onError: (error) => errors.push(error.message),
  });
  t.teardown(() => proxy.close({ drain: 0 }));
  const port = 'port' in proxy.address ? proxy.address.port : 0;
  const client = net.connect(port, '127.0.0.1');
  await once(client, 'connect');
  const { localPort } = client;
  t.is((await readAll(client)).toString(), 'here');
  t.like(clients[0], { remoteAddress: '127.0.0.1', remotePort: localPort, localPort: port, attempt: 0 });
  t.like(clients[1], { attempt: 1 });
  for (let count = 0; count < 3; count++) await t.throwsAsync(readAll(net.connect(port, '127.0.0.1')));
  t.is(errors.length, 2);
  t.is(errors[0], 'no target');
  t.regex(errors[1] ?? '', /invalid result of target\(\) 'nonsense'/);
  t.like(proxy.stats(), { unreachable: 3, retries: 1 });
});

test('createProxy with mirrors: one file, a file for each connection, and a server', async (t) => {
  const directory = scratch(t);
  const target = net.createServer((socket) => socket.on('error', () => {}).pipe(socket)).listen(0, '127.0.0.1');
  const copies: Array<Promise<Buffer>> = [];
  const mirror = net.createServer((socket) => copies.push(readAll(socket))).listen(0, '127.0.0.1');
  await Promise.all([once(target, 'listening'), once(mirror, 'listening')]);
  t.teardown(() => target.close());
  t.teardown(() => mirror.close());
  const all = join(directory, 'all');
  const policy = 'block';
  const proxy = await createProxy({
    target: portOf(target),
    mirror: [
      { file: all, policy },
      { file: join(directory, 'down-{n}'), direction: 'down', policy },
      { connect: portOf(mirror), policy },
    ],
  });
  t.teardown(() => proxy.close({ drain: 0 }));
  const port = 'port' in proxy.address ? proxy.address.port : 0;
  const sent = [pattern(700_000), pattern(900_000)];
  for (const bytes of sent) {
    const client = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    client.end(bytes);
    t.is(sha256(await readAll(client)), sha256(bytes));
    await until(() => proxy.stats().connections === 0);
  }
  t.is(sha256(await readFile(all)), sha256(Buffer.concat(sent)));
  for (const [at, bytes] of sent.entries()) {
    t.is(sha256(await readFile(join(directory, `down-${at + 1}`))), sha256(bytes));
    t.is(sha256((await copies[at]) ?? Buffer.alloc(0)), sha256(bytes));
  }
  t.like(proxy.stats(), { mirrored: 3 * 1_600_000, dropped: 0, mirrorFailures: 0 });

  const invalid: Array<[object, RegExp]> = [
    [{}, /invalid mirror\[0\] .* \{ file \} or \{ connect \}/],
    [{ file: 'a', connect: 1 }, /mirror\[0\]/],
    [{ file: '' }, /invalid mirror\[0\].file ''/],
    [{ connect: 0 }, /invalid mirror\[0\].connect 0/],
    [{ file: 'a', policy: 'x' }, /invalid mirror\[0\].policy 'x'/],
    [{ file: 'a', direction: 'x' }, /invalid mirror\[0\].direction 'x'/],
  ];
  for (const [one, message] of invalid)
    await t.throwsAsync(createProxy({ target: 1, mirror: [one as never] }), { message });
  await t.throwsAsync(createProxy({ target: 1, mirror: [{ file: '/nowhere/at/all' }] }), { code: 'ENOENT' });
});
