/** Regressions of proxies and of relay(). */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

import test, { type ExecutionContext } from 'ava';
import {
  createEchoServer,
  createFileServer,
  createProxy,
  createSplitter,
  type ProxyOptions,
  type Relay,
  relay,
} from 'zerosend';

import { scratch, until } from '../support/files.js';
import { pair, portOf, readAll, readToClose } from '../support/wire.js';

const MAIN = new URL('../../dist/lib/cli/main.js', import.meta.url).pathname;
const METHODS = ['auto', 'splice', 'read-write'] as const;

function portOfRelay({ address }: Relay): number {
  if ('path' in address) throw new Error('a TCP address');
  return address.port;
}

async function proxyTo(t: ExecutionContext, target: ProxyOptions['target'], options: Partial<ProxyOptions> = {}) {
  const proxy = await createProxy({ target, workers: 1, ...options });
  t.teardown(() => proxy.close({ drain: 0 }));
  return proxy;
}

async function listening(
  t: ExecutionContext,
  onConnection: (socket: net.Socket) => void,
  where: net.ListenOptions = {},
) {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => onConnection(socket.on('error', () => {})));
  server.listen({ port: 0, host: '127.0.0.1', ...where });
  await once(server, 'listening');
  t.teardown(() => server.close());
  return server;
}

/** Responds to the first bytes and resets the connection. */
function answerAndReset(socket: net.Socket): void {
  socket.once('data', () => socket.write('answer', () => socket.resetAndDestroy()));
}

test('a response before a reset is delivered, with each method', async (t) => {
  const target = await listening(t, answerAndReset);
  for (const method of METHODS) {
    const proxy = await proxyTo(t, portOf(target), { method });
    for (let count = 0; count < 50; count++) {
      const client = net.connect(portOfRelay(proxy), '127.0.0.1');
      client.write(Buffer.alloc(3000));
      // libuv reports the end of the stream when bytes and a reset arrive together, so the reset is tested in Rust.
      const { bytes } = await readToClose(client);
      t.is(bytes.toString(), 'answer', `${method}, ${count}`);
    }
  }
});

test('relay: a response before a reset is delivered', async (t) => {
  for (const method of METHODS) {
    const [left, right] = [await pair(t), await pair(t)];
    const joined = relay(left.server, right.client, { method });
    const failed = t.throwsAsync(joined);
    const received = readToClose(left.client);
    right.server.once('data', () => right.server.write('answer', () => right.server.resetAndDestroy()));
    left.client.write('question');
    t.is((await received).bytes.toString(), 'answer', method);
    t.is(((await failed) as unknown as { side: string } | undefined)?.side, 'b');
  }
});

test('a splitter relays all bytes before the reset of its source, and resets its sinks', async (t) => {
  const [source, sink] = [await pair(t), await pair(t)];
  const splitter = await createSplitter(source.server, [sink.server]);
  const received = readToClose(sink.client);
  const failed = t.throwsAsync(splitter.finished);
  source.client.write('part');
  await once(sink.client, 'data');
  source.client.resetAndDestroy();
  await failed;
  const { bytes, reset } = await received;
  t.is(bytes.toString(), 'part');
  t.true(reset, 'the sink is reset');
});

test('an idle timeout resets the connection', async (t) => {
  const target = await listening(t, (socket) => socket.write('part'));
  const proxy = await proxyTo(t, portOf(target), { idleTimeout: 1000 });
  const { bytes, reset } = await readToClose(net.connect(portOfRelay(proxy), '127.0.0.1'));
  t.is(bytes.toString(), 'part');
  t.true(reset);
  t.is(proxy.stats().idleTimeouts, 1);
});

test('all addresses of a name are tried, and the name is looked up again', async (t) => {
  // The server has one address family only, whichever 'localhost' resolves to.
  for (const host of ['127.0.0.1', '::1']) {
    const target = await listening(t, (socket) => socket.end('here'), { host }).catch(() => undefined);
    if (target === undefined) continue;
    const found = await import('node:dns/promises').then(({ lookup }) => lookup('localhost', { all: true }));
    if (!found.some(({ address }) => address === host)) continue;
    const proxy = await proxyTo(t, `localhost:${portOf(target)}`, { retries: 0, resolveInterval: 20 });
    for (let count = 0; count < 3; count++) {
      t.is((await readAll(net.connect(portOfRelay(proxy), '127.0.0.1'))).toString(), 'here', host);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const resolving = await proxyTo(t, () => `localhost:${portOf(target)}`, { retries: 0 });
    t.is((await readAll(net.connect(portOfRelay(resolving), '127.0.0.1'))).toString(), 'here', host);
    // The same for mirrors, with an IP address as target.
    const copies: Promise<Buffer>[] = [];
    const copying = await listening(t, (socket) => copies.push(readAll(socket)), { host });
    const mirror = [{ connect: `localhost:${portOf(copying)}`, direction: 'down', policy: 'block' }] as const;
    const address = { host, port: portOf(target) };
    const mirrored = await proxyTo(t, address, { mirror, resolveInterval: 20 });
    for (let count = 0; count < 3; count++) {
      t.is((await readAll(net.connect(portOfRelay(mirrored), '127.0.0.1'))).toString(), 'here', host);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await until(() => copies.length === 3 && mirrored.stats().connections === 0);
    t.deepEqual((await Promise.all(copies)).map(String), ['here', 'here', 'here'], host);
  }
});

test('the share of a target that is down is spread evenly', async (t) => {
  const dead = await listening(t, () => {});
  const deadPort = portOf(dead);
  await new Promise((resolve) => dead.close(resolve));
  const named = async (name: string) => portOf(await listening(t, (socket) => socket.end(name)));
  const targets = [await named('a'), deadPort, await named('c'), await named('d')];
  for (const balance of ['round-robin', 'least-connections'] as const) {
    const proxy = await proxyTo(t, targets, { balance, downTime: 60_000 });
    const served: Record<string, number> = {};
    for (let count = 0; count < 60; count++) {
      const name = (await readAll(net.connect(portOfRelay(proxy), '127.0.0.1'))).toString();
      served[name] = (served[name] ?? 0) + 1;
      await until(() => proxy.stats().connections === 0);
    }
    t.deepEqual(served, { a: 20, c: 20, d: 20 }, balance);
  }
});

test('Unix sockets: invalid paths are refused, abstract names work, a stale socket is replaced', async (t) => {
  const code = 'ERR_ZEROSEND_INVALID_ARGUMENT';
  const long = join(scratch(t), 'x'.repeat(120));
  for (const path of [long, '/tmp/a\0b', '\0']) {
    await t.throwsAsync(createProxy({ target: { path } }), { code, message: /target/ });
    await t.throwsAsync(createProxy({ target: 1, listen: { path } }), { code, message: /listen/ });
    await t.throwsAsync(createProxy({ target: 1, mirror: [{ connect: { path } }] }), { code, message: /mirror\[0\]/ });
    await t.throwsAsync(createEchoServer({ listen: { path } }), { code, message: /listen/ });
    t.throws(() => createFileServer({ root: scratch(t), path }), { code, message: /path/ });
  }
  const errors: Error[] = [];
  const resolving = await proxyTo(t, () => ({ path: long }), { onError: (error) => errors.push(error) });
  t.true((await readToClose(net.connect(portOfRelay(resolving), '127.0.0.1'))).reset);
  t.regex(errors[0]?.message ?? '', /107/);

  const name = `zerosend-test-${process.pid}`;
  const echo = await createEchoServer({ listen: `unix:@${name}` });
  t.teardown(() => echo.close({ drain: 0 }));
  const proxy = await proxyTo(t, { path: `\0${name}` });
  const client = net.connect({ port: portOfRelay(proxy), host: '127.0.0.1', allowHalfOpen: true });
  client.end('hello');
  t.is((await readAll(client)).toString(), 'hello');

  const path = join(scratch(t), 'proxy.sock');
  const killed = spawn(process.execPath, [MAIN, 'proxy', '-l', `unix:${path}`, '-t', '1'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(createInterface({ input: killed.stdout }), 'line');
  killed.kill('SIGKILL');
  await once(killed, 'close');
  t.true(existsSync(path));
  const again = await createEchoServer({ listen: { path }, socketMode: 0o600 });
  t.is(statSync(path).mode & 0o777, 0o600);
  await t.throwsAsync(createEchoServer({ listen: { path } }), { code: 'EADDRINUSE' });
  await again.close();
  t.false(existsSync(path));
  await t.throwsAsync(createEchoServer({ socketMode: 0o600 }), { code, message: /socketMode/ });
});

test('the PROXY v2 command for clients of a Unix socket is LOCAL', async (t) => {
  const target = await listening(t, (socket) => socket.pipe(socket));
  const path = join(scratch(t), 'proxy.sock');
  await proxyTo(t, portOf(target), { listen: { path }, proxyProtocol: 'v2' });
  const client = net.connect({ path, allowHalfOpen: true });
  client.end();
  t.deepEqual([...(await readAll(client))].slice(12), [0x20, 0, 0, 0]);
});

test('keep-alive probes are on for both sides unless disabled', async (t) => {
  const target = await listening(t, (socket) =>
    socket
      .on('end', () => socket.end())
      .resume()
      .write('x'),
  );
  for (const [keepAlive, count] of [
    [undefined, 2],
    [0, 0],
  ] as const) {
    const proxy = await proxyTo(t, portOf(target), { keepAlive });
    const client = net.connect(portOfRelay(proxy), '127.0.0.1').on('error', () => {});
    t.teardown(() => client.destroy());
    await once(client, 'data');
    t.is(await keepAliveTimers([portOfRelay(proxy), portOf(target)]), count, `keepAlive: ${keepAlive}`);
    client.destroy();
    await until(() => proxy.stats().connections === 0);
  }
  const [left, right] = [await pair(t), await pair(t)];
  const joined = relay(left.server, right.client);
  await until(() => left.server.listenerCount('close') > 0);
  await waitForKeepAliveTimers(t, [left.server.localPort as number, right.server.localPort as number], 2);
  left.client.end();
  right.server.end();
  await joined;
});

/** Number of established sockets with one of these ports that have a keep-alive timer: column `tr` in proc(5). */
async function keepAliveTimers(ports: number[]): Promise<number> {
  const { readFile } = await import('node:fs/promises');
  const lines = (await readFile('/proc/self/net/tcp', 'utf8')).trim().split('\n').slice(1);
  return lines.filter((line) => {
    const [, local = '', remote = '', state = '', , timer = ''] = line.trim().split(/\s+/);
    const port = (address: string) => Number.parseInt(address.split(':')[1] ?? '', 16);
    return (
      state === '01' && timer.startsWith('02:') && ports.some((one) => port(local) === one || port(remote) === one)
    );
  }).length;
}

async function waitForKeepAliveTimers(t: ExecutionContext, ports: number[], count: number): Promise<void> {
  let seen = -1;
  for (let tries = 0; tries < 100 && seen !== count; tries++) {
    seen = await keepAliveTimers(ports);
    if (seen !== count) await new Promise((resolve) => setTimeout(resolve, 20));
  }
  t.is(seen, count);
}

test('clients wait in the backlog while descriptors are missing', async (t) => {
  const target = await listening(t, (socket) => socket.on('data', (data) => socket.end(data)));
  for (const workers of [1, 3]) {
    const args = ['proxy', '-l', '0', '-t', String(portOf(target)), '--workers', String(workers)];
    const { child, port } = await limited(t, 64, args);
    const clients = Array.from({ length: 150 }, () => net.connect({ port, host: '127.0.0.1', allowHalfOpen: true }));
    const failures: string[] = [];
    for (const client of clients) {
      client.on('error', (error: NodeJS.ErrnoException) => failures.push(String(error.code)));
    }
    await Promise.all(clients.map((client) => once(client, 'connect')));
    // Connections that end free the descriptors for those in the backlog.
    for (const client of clients) client.end('x');
    const answers = await Promise.all(clients.map((client) => readAll(client).catch(() => Buffer.of())));
    t.is(answers.filter((answer) => answer.toString() === 'x').length, 150, `${workers}: ${failures.join()}`);
    child.kill('SIGKILL');
  }
});

test('connections in the backlog of a stopped process are served when it closes', async (t) => {
  const target = await listening(t, (socket) => socket.on('data', (data) => socket.end(data)));
  const { child, port } = await limited(t, 4096, ['proxy', '-l', '0', '-t', String(portOf(target)), '--workers', '2']);
  child.kill('SIGSTOP');
  const clients = Array.from({ length: 300 }, () => net.connect(port, '127.0.0.1'));
  const failures: string[] = [];
  for (const client of clients) client.on('error', (error: NodeJS.ErrnoException) => failures.push(String(error.code)));
  await Promise.all(clients.map((client) => once(client, 'connect')));
  for (const client of clients) client.end('x');
  child.kill('SIGTERM');
  child.kill('SIGCONT');
  const answers = await Promise.all(clients.map((client) => readAll(client).catch(() => Buffer.of())));
  t.is(answers.filter((answer) => answer.toString() === 'x').length, 300, failures.join());
  t.deepEqual(await once(child, 'close'), [0, null]);
});

/** Runs the command with a limit of descriptors, and returns its port. */
async function limited(
  t: ExecutionContext,
  descriptors: number,
  args: string[],
): Promise<{ child: ChildProcess; port: number }> {
  const script = 'ulimit -n "$0"; exec "$@"';
  const child = spawn('sh', ['-c', script, String(descriptors), process.execPath, MAIN, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return { child, port: Number(/:(\d+),/.exec(line)?.[1]) };
}

test('relay with no descriptors left fails with EMFILE', async (t) => {
  const script = `
    import fs from 'node:fs';
    import net from 'node:net';
    import { relay } from ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)};
    const pair = () => new Promise((resolve) => {
      const server = net.createServer((one) => { server.close(); resolve([one, two]); });
      const two = net.connect(server.listen(0).address().port);
    });
    const [[a], [b]] = [await pair(), await pair()];
    for (let left = 0; left <= 4; left++) {
      const held = [];
      try { for (;;) held.push(fs.openSync('/dev/null')); } catch {}
      for (let count = 0; count < left; count++) fs.closeSync(held.pop());
      const [c, d] = [a, b];
      const outcome = await Promise.race([relay(c, d).then(() => 'joined', (error) => error.code), new Promise((r) => setTimeout(r, 500, 'running'))]);
      for (const fd of held) fs.closeSync(fd);
      console.log(left, outcome);
      break;
    }
    process.exit(0);
  `;
  const run = promisify(execFile)('sh', [
    '-c',
    'ulimit -n 80; exec "$0" --input-type=module -e "$1"',
    process.execPath,
    script,
  ]);
  t.is((await run).stdout.trim(), '0 EMFILE');
});
