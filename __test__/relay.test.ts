/** createProxy, createEchoServer and `zerosend proxy`. The behavior of relays is tested in Rust. */
import { type ChildProcess, execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

import test, { type ExecutionContext } from 'ava';
import { globSync } from 'glob';
import { WebSocket, WebSocketServer } from 'ws';
import { createEchoServer, createProxy, type ProxyOptions, type Relay } from 'zerosend';

import { openDescriptors, pattern, scratch, settled, sha256, until } from './support/files.js';
import { certificate } from './support/tls.js';
import { testWith } from './support/tools.js';
import { portOf, readAll } from './support/wire.js';

const MAIN = new URL('../dist/lib/cli/main.js', import.meta.url).pathname;

function portOfRelay({ address }: Relay): number {
  if ('path' in address) throw new Error('a TCP address');
  return address.port;
}

async function proxyTo(t: ExecutionContext, target: ProxyOptions['target'], options: Partial<ProxyOptions> = {}) {
  const relay = await createProxy({ target, workers: 1, ...options });
  t.teardown(() => relay.close({ drain: 0 }));
  return relay;
}

async function listening<S extends net.Server>(
  t: ExecutionContext,
  server: S,
  where: net.ListenOptions = { port: 0, host: '127.0.0.1' },
): Promise<S> {
  server.listen(where);
  await once(server, 'listening');
  t.teardown(() => server.close());
  return server;
}

test.serial('an echo server returns all bytes after a half-close and leaves no descriptor open', async (t) => {
  const before = openDescriptors();
  for (const method of ['splice', 'read-write'] as const) {
    const relay = await createEchoServer({ method, workers: 2 });
    const client = net.connect({ port: portOfRelay(relay), host: '127.0.0.1', allowHalfOpen: true });
    const bytes = pattern(5_000_000);
    client.end(bytes);
    t.is(sha256(await readAll(client)), sha256(bytes));
    await until(() => relay.stats().connections === 0);
    t.like(relay.stats(), { accepted: 1, bytesUp: 5_000_000, clientFailures: 0 });
    await relay.close();
    t.is(relay.stats().accepted, 1, 'the last counts remain');
    await relay.close();
  }
  await settled(t, before);
});

test('HTTP, TLS and WebSocket pass through, over TCP and Unix sockets', async (t) => {
  const path = join(scratch(t), 'target.sock');
  const plain = await listening(
    t,
    http.createServer((request, response) => request.pipe(response)),
    { path },
  );
  t.truthy(plain);
  const relay = await proxyTo(t, { path });
  const body = pattern(1_000_000);
  const answer = await fetch(`http://127.0.0.1:${portOfRelay(relay)}/`, { method: 'POST', body });
  t.is(sha256(Buffer.from(await answer.arrayBuffer())), sha256(body));

  const secure = await listening(
    t,
    https.createServer(certificate(t), (_request, response) => response.end('secret')),
  );
  const port = portOfRelay(await proxyTo(t, portOf(secure)));
  const request = https.get({ port, host: '127.0.0.1', rejectUnauthorized: false, agent: false });
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  t.is((await readAll(response)).toString(), 'secret');

  const upgrading = await listening(t, http.createServer());
  new WebSocketServer({ server: upgrading }).on('connection', (socket) => {
    socket.on('message', (message: Buffer) => socket.send(`got ${message}`));
  });
  const socket = new WebSocket(`ws://127.0.0.1:${portOfRelay(await proxyTo(t, `127.0.0.1:${portOf(upgrading)}`))}`);
  await once(socket, 'open');
  socket.send('one');
  const [message] = (await once(socket, 'message')) as [Buffer];
  t.is(message.toString(), 'got one');
  socket.close();
  await once(socket, 'close');
});

test('several targets are used in turn, and the PROXY header is sent', async (t) => {
  const named = (name: string) =>
    listening(
      t,
      net.createServer((socket) => ignoreErrors(socket).end(name)),
    );
  const [one, two] = [await named('one'), await named('two')];
  const relay = await proxyTo(t, [portOf(one), { port: portOf(two) }]);
  const names: string[] = [];
  for (let count = 0; count < 4; count++) {
    names.push((await readAll(net.connect(portOfRelay(relay), '127.0.0.1'))).toString());
  }
  t.deepEqual(names.sort(), ['one', 'one', 'two', 'two']);

  const lines: string[] = [];
  const target = await listening(
    t,
    net.createServer((socket) =>
      createInterface({ input: ignoreErrors(socket) }).on('line', (line) => lines.push(line)),
    ),
  );
  const proxy = await proxyTo(t, portOf(target), { proxyProtocol: 'v1' });
  const client = net.connect(portOfRelay(proxy), '127.0.0.1');
  await once(client, 'connect');
  const { localPort } = client;
  client.end('hello\n');
  await readAll(client);
  t.deepEqual(lines, [`PROXY TCP4 127.0.0.1 127.0.0.1 ${localPort} ${portOfRelay(proxy)}`, 'hello']);
});

test('createProxy rejects invalid options, a port in use and unknown names', async (t) => {
  const code = 'ERR_ZEROSEND_INVALID_ARGUMENT';
  const cases: [object, RegExp][] = [
    [{}, /missing target: use a port/],
    [{ target: [] }, /target .* at least one address/],
    [{ target: 'nowhere' }, /invalid target 'nowhere': use a port, 'host:port'/],
    [{ target: 0 }, /invalid target 0: .* port from 1 up/],
    [{ target: 70_000 }, /invalid target 70000/],
    [{ target: { path: '' } }, /target/],
    [{ target: 80, listen: 'a:b:c' }, /invalid listen 'a:b:c'/],
    [{ target: 80, method: 'teleport' }, /invalid method 'teleport': use 'auto', 'splice', 'read-write'/],
    [{ target: 80, pipeSize: 1 }, /invalid pipeSize 1: use an integer from 4096/],
    [{ target: 80, retries: -1 }, /invalid retries -1/],
    [{ target: 80, idleTimeout: 0.5 }, /invalid idleTimeout 0.5/],
    [{ target: 80, proxyProtocol: 'v3' }, /invalid proxyProtocol 'v3'/],
  ];
  for (const [options, message] of cases) {
    await t.throwsAsync(createProxy(options as ProxyOptions), { code, message }, JSON.stringify(options));
  }
  const relay = await proxyTo(t, 80);
  await t.throwsAsync(createProxy({ target: 80, listen: portOfRelay(relay) }), { code: 'EADDRINUSE' });
  const error = await t.throwsAsync(createProxy({ target: 'no-such-name.invalid:80' }));
  t.regex((error as NodeJS.ErrnoException).code ?? '', /^E(NOTFOUND|AI_AGAIN)$/);
});

test('a client is reset and counted when the target is down', async (t) => {
  const closed = await listening(t, net.createServer());
  const port = portOf(closed);
  closed.close();
  const relay = await proxyTo(t, port);
  const client = net.connect(portOfRelay(relay), '127.0.0.1');
  const [error] = (await once(client, 'error')) as [NodeJS.ErrnoException];
  t.is(error.code, 'ECONNRESET');
  t.like(relay.stats(), { accepted: 1, unreachable: 1, connections: 0 });
});

testWith('strace')('strace: the payload is moved by splice only', async (t) => {
  const target = await listening(
    t,
    net.createServer((socket) => ignoreErrors(socket).end(pattern(16 * 1024 * 1024))),
  );
  const proxy = await command(t, [
    'proxy',
    '--listen',
    '0',
    '--to',
    String(portOf(target)),
    '--workers',
    '1',
    '--method',
    'splice',
  ]);
  const log = join(scratch(t), 'trace');
  const calls = 'splice,read,write,readv,writev,recvfrom,sendto,recvmsg,sendmsg';
  const strace = spawn('strace', ['-f', '-e', `trace=${calls}`, '-o', log, '-p', String(proxy.child.pid)]);
  await once(strace.stderr, 'data');
  t.is((await readAll(net.connect(proxy.port, '127.0.0.1'))).length, 16 * 1024 * 1024);
  strace.kill('SIGINT');
  await once(strace, 'close');
  const moved = { splice: 0, other: 0 };
  for (const [, call, count] of readFileSync(log, 'utf8').matchAll(/(\w+)\(.* = (\d+)$/gm)) {
    moved[call === 'splice' ? 'splice' : 'other'] += Number(count);
  }
  t.true(moved.splice >= 2 * 16 * 1024 * 1024, `${moved.splice}`);
  t.true(moved.other < 4096, `${moved.other}`);
});

test('zerosend proxy relays, and rejects invalid options', async (t) => {
  const target = await listening(
    t,
    net.createServer((socket) => ignoreErrors(socket).end('there')),
  );
  const { child, port } = await command(t, ['proxy', '-l', '127.0.0.1:0', '-t', `127.0.0.1:${portOf(target)}`]);
  t.is((await readAll(net.connect(port, '127.0.0.1'))).toString(), 'there');
  child.kill('SIGTERM');
  t.deepEqual(await once(child, 'close'), [0, null]);
  for (const [args, message] of [
    [[], /missing --listen/],
    [['-l', '1'], /missing --to/],
    [['-l', '1', '-t', 'x'], /invalid --to 'x'/],
    [['-l', '1', '-t', '1', '--balance', 'x'], /invalid --balance 'x'/],
  ] as const) {
    const failed = t.throws(() => execFileSync(process.execPath, [MAIN, 'proxy', ...args], { stdio: 'pipe' }));
    t.is((failed as unknown as { status: number }).status, 2);
    t.regex(String((failed as unknown as { stderr: Buffer }).stderr), message);
  }
});

testWith('redis-server', 'redis-benchmark')('redis-benchmark through the proxy', async (t) => {
  const directory = scratch(t);
  const path = join(directory, 'redis.sock');
  writeFileSync(join(directory, 'redis.conf'), `port 0\nunixsocket ${path}\nsave ""\ndir ${directory}\n`);
  const redis = spawn('redis-server', [join(directory, 'redis.conf')], { stdio: 'ignore' });
  t.teardown(() => redis.kill('SIGKILL'));
  await until(() => spawnSync('redis-cli', ['-s', path, 'ping']).stdout.toString().trim() === 'PONG');
  const relay = await proxyTo(t, { path });
  const load = '-n 20000 -c 50 -P 16 -d 1024 -t set,get --csv'.split(' ');
  const output = await promisify(execFile)('redis-benchmark', ['-p', String(portOfRelay(relay)), ...load]);
  t.regex(output.stdout, /"GET"/);
  await until(() => relay.stats().connections === 0);
  t.like(relay.stats(), { degraded: 0, clientFailures: 0, targetFailures: 0 });
});

testWith('pgbench')('pgbench through the proxy, to PostgreSQL on a Unix socket', async (t) => {
  const directory = scratch(t);
  // PostgreSQL refuses to run as root.
  const id = (what: '-u' | '-g') => Number(execFileSync('id', [what, 'postgres']));
  const user = process.getuid?.() === 0 ? { uid: id('-u'), gid: id('-g') } : {};
  if (user.uid !== undefined) chownSync(directory, user.uid, user.gid);
  const [newest = ''] = globSync('/usr/lib/postgresql/*/bin').sort().reverse();
  const data = join(directory, 'data');
  const initialize = ['-D', data, '-U', 'postgres', '-A', 'trust', '--no-sync'];
  execFileSync(join(newest, 'initdb'), initialize, { ...user, cwd: directory, stdio: 'ignore' });
  const settings = ['-c', 'listen_addresses=', '-c', 'fsync=off', '-c', `unix_socket_directories=${directory}`];
  const server = spawn(join(newest, 'postgres'), ['-D', data, ...settings], {
    ...user,
    cwd: directory,
    stdio: 'ignore',
  });
  t.teardown(() => server.kill('SIGQUIT'));
  const bench = (...args: string[]) =>
    promisify(execFile)(join(newest, 'pgbench'), [...args, '-h', '127.0.0.1', '-U', 'postgres', 'postgres']);
  await until(() => spawnSync(join(newest, 'pg_isready'), ['-h', directory]).status === 0, 20_000);
  const relay = await proxyTo(t, { path: join(directory, '.s.PGSQL.5432') });
  const port = String(portOfRelay(relay));
  await bench('-p', port, '-i', '-s', '1', '-q');
  const { stdout } = await bench('-p', port, '-c', '8', '-t', '200', '-n');
  t.regex(stdout, /processed: 1600\/1600/);
  // A connection for each transaction.
  const reconnecting = await bench('-p', port, '-c', '2', '-t', '20', '-n', '-C', '-S');
  t.regex(reconnecting.stdout, /processed: 40\/40/);
  await until(() => relay.stats().connections === 0);
  t.like(relay.stats(), { degraded: 0, clientFailures: 0, targetFailures: 0 });
});

/** Ignores the errors of a socket. */
function ignoreErrors(socket: net.Socket): net.Socket {
  return socket.on('error', () => {});
}

/** Runs a command that listens, and returns its port. */
async function command(t: ExecutionContext, args: string[]): Promise<{ child: ChildProcess; port: number }> {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return { child, port: Number(/:(\d+),/.exec(line)?.[1]) };
}
