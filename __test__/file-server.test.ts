/** createFileServer and `zerosend serve` over real connections. HTTP semantics are tested in Rust. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';

import test, { type ExecutionContext } from 'ava';
import { createFileServer, type FileServerOptions } from 'zerosend';

import { openDescriptors, pattern, patternFile, scratch, settled, sha256, until } from './support/files.js';
import { serialTestWith } from './support/tools.js';
import { exchange, readAll } from './support/wire.js';

const MAIN = new URL('../dist/lib/cli/main.js', import.meta.url).pathname;

async function start(t: ExecutionContext, options: Partial<FileServerOptions> = {}) {
  const root = scratch(t);
  writeFileSync(join(root, 'index.html'), '<h1>top</h1>');
  mkdirSync(join(root, 'sub'));
  patternFile(join(root, 'sub'), 'large.bin', 5_000_000);
  const server = createFileServer({ root, ...options });
  t.teardown(() => server.close({ drain: 0 }));
  const address = await server.listen();
  if (!('url' in address)) throw new Error('a TCP address');
  return { server, root, ...address };
}

test.serial('a server listens, serves, counts, and closes all descriptors', async (t) => {
  const before = openDescriptors();
  const { server, url, port } = await start(t, { workers: 2, headers: { 'X-One': '1' }, metrics: '/metrics' });
  t.is(url, `http://127.0.0.1:${port}/`);
  t.deepEqual(server.address, { host: '127.0.0.1', port, url });
  const response = await fetch(`${url}sub/large.bin`);
  t.is(sha256(Buffer.from(await response.arrayBuffer())), sha256(pattern(5_000_000)));
  t.is(response.headers.get('x-one'), '1');
  t.is((await fetch(`${url}nothing`)).status, 404);
  t.is(await (await fetch(url)).text(), '<h1>top</h1>');
  const part = await fetch(`${url}sub/large.bin`, { headers: { range: 'bytes=4-7' } });
  t.deepEqual(Buffer.from(await part.arrayBuffer()), pattern(8).subarray(4));
  const stats = server.stats();
  t.like(stats, { requests: 4, failures: 0, aborted: 0, statuses: { '2xx': 3, '4xx': 1 } });
  t.true(stats.bytes > 5_000_000);
  t.is(
    Object.values(stats.methods).reduce((one, other) => one + other),
    3,
  );
  t.regex(await (await fetch(`${url}metrics`)).text(), /^zerosend_requests_total 5$/m);
  await server.close();
  t.is(server.address, undefined);
  t.is(server.stats().requests, 5);
  await t.throwsAsync(fetch(url));
  await t.throwsAsync(server.listen(), { code: 'ERR_ZEROSEND_CLOSED' });
  await settled(t, before);
});

test.serial('close waits for responses in flight and resets them after drain', async (t) => {
  for (const [drain, whole] of [
    [5000, true],
    [50, false],
  ] as const) {
    const { server, port, root } = await start(t);
    patternFile(root, 'huge.bin', 32_000_000);
    const client = connect(port, '127.0.0.1').on('error', () => {});
    client.write('GET /huge.bin HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(client, 'readable');
    const closed = server.close({ drain });
    if (!whole) await closed;
    const body = await readAll(client).catch(() => Buffer.alloc(0));
    t.is(body.length > 32_000_000, whole);
    await closed;
    t.is(server.stats().aborted, whole ? 0 : 1);
  }
});

test.serial('a port in use is an error without reusePort', async (t) => {
  const { port, root } = await start(t);
  await t.throwsAsync(createFileServer({ root, port }).listen(), { code: 'EADDRINUSE' });
  const shared = await start(t, { reusePort: true });
  const other = createFileServer({ root: shared.root, port: shared.port, reusePort: true });
  t.teardown(() => other.close({ drain: 0 }));
  await other.listen();
  for (let at = 0; at < 100; at++) await exchange(shared.port, 'GET / HTTP/1.0\r\n\r\n');
  t.is(shared.server.stats().requests + other.stats().requests, 100);
  t.true(other.stats().requests > 10, 'the kernel spreads connections');
});

test.serial('a Unix socket is served', async (t) => {
  const root = scratch(t);
  writeFileSync(join(root, 'a.txt'), 'hello');
  const path = join(root, 'socket');
  const server = createFileServer({ root, path });
  t.deepEqual(await server.listen(), { path });
  const answer = request({ socketPath: path, path: '/a.txt' }).end();
  const [response] = await once(answer, 'response');
  t.is((await readAll(response)).toString(), 'hello');
  await server.close();
});

test.serial('options reach the native server', async (t) => {
  const { url, root } = await start(t, {
    prefix: '/files',
    list: 'json',
    maxAge: '1h',
    immutable: 'hashed',
    dotfiles: 'deny',
    cors: true,
    fallback: 'index.html',
    preCompressed: ['gzip'],
    cacheControl: { '*.bin': 'no-store' },
  });
  t.regex(url, /\/files\/$/);
  writeFileSync(join(root, 'app-BH3kT9aZ.js'), 'x');
  writeFileSync(join(root, '.env'), 'x');
  const head = async (path: string) => (await fetch(url + path, { method: 'HEAD' })).headers;
  t.is((await head('app-BH3kT9aZ.js')).get('cache-control'), 'public, max-age=31536000, immutable');
  t.is((await head('index.html')).get('cache-control'), 'public, max-age=3600');
  t.is((await head('sub/large.bin')).get('cache-control'), 'no-store');
  t.is((await head('')).get('access-control-allow-origin'), '*');
  t.is((await head('')).get('vary'), 'accept-encoding');
  t.is((await fetch(`${url}.env`)).status, 403);
  t.is(await (await fetch(`${url}some/route`)).text(), '<h1>top</h1>');
  const list = (await (await fetch(`${url}sub/`)).json()) as { path: string; entries: unknown[] };
  t.like(list, { path: '/files/sub/', entries: [{ name: 'large.bin', type: 'file', size: 5_000_000 }] });
  t.is((await fetch(new URL('/other', url))).status, 404);
});

test.serial('requests are logged to a file', async (t) => {
  const directory = scratch(t);
  const path = join(directory, 'log');
  const { server, url } = await start(t, { log: { format: 'json', path } });
  await fetch(`${url}?a="b"`, { headers: { 'user-agent': 'me' } });
  await fetch(`${url}nothing`, { method: 'POST' });
  await server.close();
  const lines = readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  t.like(lines[0], { client: '127.0.0.1', method: 'GET', target: '/?a=%22b%22', status: 200, userAgent: 'me' });
  t.like(lines[1], { method: 'POST', target: '/nothing', status: 405, aborted: false });
});

test('invalid options are named with their value and a remedy', async (t) => {
  const root = scratch(t);
  const wrong = (options: object, message: RegExp) =>
    t.throws(() => createFileServer({ root, ...options } as FileServerOptions), {
      code: 'ERR_ZEROSEND_INVALID_ARGUMENT',
      message,
    });
  wrong({ port: 65_536 }, /invalid port 65536: use an integer from 0 to 65535/);
  wrong({ workers: 0 }, /invalid workers 0/);
  wrong({ list: 'xml' }, /invalid list 'xml'/);
  wrong({ root: [] }, /root/);
  wrong({ root: 5 }, /invalid root 5/);
  wrong({ limits: { heads: 1 } }, /unknown limit 'heads': use one of connections, /);
  wrong({ limits: { idleTimeout: -1 } }, /invalid limits.idleTimeout -1: use an integer from 0/);
  wrong({ log: 'apache' }, /invalid log 'apache'/);
  wrong({ headers: { a: 1 } }, /invalid headers\['a'\] 1/);
  wrong({ etag: 'hash' as 'strong' }, /invalid etag 'hash'/);
  const late = (options: object, message: RegExp) =>
    t.throwsAsync(createFileServer({ root, ...options } as FileServerOptions).listen(), { message });
  await late({ headers: { 'a b': '1' } }, /invalid header name 'a b'/);
  await late({ limits: { headBytes: 1 } }, /invalid limits.headBytes 1: use 256 to 1048576/);
  wrong({ root: `${root}\0` }, /invalid root .*: use a path without NUL/);
});

test.serial('a worker thread that ends closes its servers', async (t) => {
  const root = scratch(t);
  patternFile(root, 'file', 8_000_000);
  const before = openDescriptors();
  const program = `
    import { parentPort, workerData } from 'node:worker_threads';
    import { createFileServer } from '${import.meta.resolve('zerosend')}';
    parentPort.postMessage((await createFileServer({ root: workerData, workers: 2 }).listen()).port);
  `;
  const url = new URL(`data:text/javascript,${encodeURIComponent(program)}`);
  await Promise.all(
    Array.from({ length: 8 }, async (_, at) => {
      const worker = new Worker(url, { workerData: root });
      const [port] = (await once(worker, 'message')) as [number];
      const client = connect(port, '127.0.0.1').on('error', () => {});
      client.write('GET /file HTTP/1.1\r\nHost: x\r\n\r\n');
      await once(client, 'readable');
      await new Promise((resolve) => setTimeout(resolve, at * 5));
      await worker.terminate();
      client.destroy();
    }),
  );
  await settled(t, before);
});

/** Runs `zerosend serve` until it prints its URL. */
async function run(t: ExecutionContext, args: string[]): Promise<{ child: ChildProcess; output: string; url: string }> {
  const child = spawn(process.execPath, [MAIN, 'serve', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  t.teardown(() => child.kill('SIGKILL'));
  let output = '';
  child.stderr?.on('data', (text) => {
    output += text;
  });
  await until(() => /at http\S+/.test(output), 10_000, 'the line with the URL');
  await new Promise((resolve) => setTimeout(resolve, 20));
  return { child, output, url: /at (http\S+?),?\s/.exec(`${output} `)?.[1] as string };
}

test.serial('zerosend serve runs the native server or Fastify and ends on a signal', async (t) => {
  const root = scratch(t);
  patternFile(root, 'file.bin', 100_000);
  writeFileSync(join(root, 'index.html'), 'index');
  for (const flags of [
    ['-m', 'sendfile', '--spa', '--list'],
    ['--fastify', '--spa'],
  ]) {
    const { child, output, url } = await run(t, ['-p', '0', '-r', root, ...flags]);
    t.regex(output, new RegExp(`serving ${root} at http://127.0.0.1:\\d+`));
    t.regex(output, /method (sendfile|auto)/);
    const base = url.replace(/\/?$/, '/');
    const bytes = Buffer.from(await (await fetch(`${base}file.bin`)).arrayBuffer());
    t.is(sha256(bytes), sha256(pattern(100_000)));
    t.is(await (await fetch(`${base}some/route`)).text(), 'index');
    child.kill('SIGTERM');
    const [code] = await once(child, 'exit');
    t.is(code, 0);
  }
});

test('zerosend serve reports an error in one line and with an exit code', async (t) => {
  const { port, root } = await start(t);
  const fail = async (args: string[], code: number, line: RegExp) => {
    const { status, stderr } = await promisify(execFile)(process.execPath, [MAIN, ...args]).then(
      () => ({ status: 0, stderr: '' }),
      (error) => ({ status: error.code as number, stderr: error.stderr as string }),
    );
    t.is(status, code, args.join(' '));
    t.regex(stderr, line);
    t.is(stderr.trim().split('\n').length, 1, stderr);
  };
  await fail(['serve', root, '-p', String(port)], 1, /^zerosend: port \d+ is in use; choose another with --port$/m);
  await fail(['serve', join(root, 'none')], 1, /none' is not a directory/);
  await fail(['serve', '--wat'], 2, /Unknown option '--wat'/);
  await fail(['serve', '--port', 'x'], 2, /invalid --port 'x'/);
  await fail(['serve', '-m', 'magic'], 2, /invalid --method 'magic': use one of auto/);
  await fail(['serve', root, root], 2, /too many directories/);
  await fail(['serve', root, '--host', 'no.such.host.invalid'], 1, /not an address of this machine/);
  await fail(['wat'], 2, /unknown command 'wat'/);
  for (const args of [['--help'], ['serve', '--help']]) {
    const { stdout } = await promisify(execFile)(process.execPath, [MAIN, ...args]);
    t.regex(stdout, /^usage: zerosend/);
  }
});

for (const [tool, args] of [
  ['curl', (url: string, out: string) => ['-sS', '-C', '-', '-o', out, url]],
  ['wget', (url: string, out: string) => ['-q', '-c', '-O', out, url]],
  [
    'aria2c',
    (url: string, out: string) => ['-q', '-x8', '-s8', '-k1M', '--allow-overwrite', '-d', '/', '-o', out.slice(1), url],
  ],
] as const) {
  serialTestWith(tool)(`${tool} ${tool === 'aria2c' ? 'in eight ranges' : 'resumes'}`, async (t) => {
    const { server, url, root } = await start(t);
    patternFile(root, 'film.bin', 20_000_000);
    const out = join(scratch(t), 'film.bin');
    // The result of an earlier attempt. aria2c resumes from its control file only.
    if (tool !== 'aria2c') writeFileSync(out, pattern(7_000_000));
    await promisify(execFile)(tool, args(`${url}film.bin`, out));
    t.is(sha256(readFileSync(out)), sha256(pattern(20_000_000)));
    await until(() => server.stats().connections === 0 || tool !== 'curl');
    t.true(tool === 'aria2c' ? server.stats().accepted >= 4 : server.stats().bytes < 14_000_000);
  });
}

test.serial('10,000 idle and 100 slow connections do not delay others and are closed in time', async (t) => {
  const limits = { idleTimeout: 4000, connections: 20_000, minRate: 100_000 };
  const { server, port, url } = await start(t, { workers: 1, limits });
  const idle = await clients(port, 10_000);
  t.teardown(() => idle.kill());
  const slow = Array.from({ length: 100 }, () => {
    const socket = connect(port, '127.0.0.1').on('error', () => {});
    socket.write('GET /sub/large.bin HTTP/1.1\r\nHost: x\r\n\r\n');
    return socket.pause();
  });
  await until(() => server.stats().connections >= 10_000, 10_000, 'all connected');
  for (let at = 0; at < 50; at++) t.is((await fetch(url)).status, 200);
  await until(() => server.stats().connections <= 1, 20_000, 'all closed');
  const { idleTimeout, minRate } = server.stats().limits;
  t.true(idleTimeout >= 10_000);
  // On a busy machine a slow connection may time out as idle before its request arrives.
  t.true(minRate > 50 && idleTimeout + minRate >= 10_100, `${idleTimeout} idle, ${minRate} slow`);
  for (const socket of slow) socket.destroy();
});

/** A process that opens `count` connections and sends no data. */
async function clients(port: number, count: number): Promise<ChildProcess> {
  const program = `
    const { connect } = require('node:net');
    let open = 0;
    const next = () => {
      if (open === ${count}) return console.log('open');
      open += 1;
      connect(${port}, '127.0.0.1', next).on('error', () => {});
    };
    next();
    setInterval(() => {}, 1000);
  `;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout as NodeJS.ReadableStream, 'data');
  return child;
}

test.serial('without descriptors it closes idle connections and continues', async (t) => {
  const root = scratch(t);
  writeFileSync(join(root, 'a.txt'), 'hello');
  const child = spawn(
    'sh',
    ['-c', `ulimit -n 120; exec "${process.execPath}" "${MAIN}" serve "${root}" -p 0 --workers 1 --metrics /m`],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  t.teardown(() => child.kill('SIGKILL'));
  let output = '';
  child.stderr.on('data', (text) => {
    output += text;
  });
  await until(() => /at http\S+/.test(output), 10_000);
  const port = Number(/:(\d+)\//.exec(output)?.[1]);
  const idle = Array.from({ length: 300 }, () => connect(port, '127.0.0.1').on('error', () => {}));
  t.teardown(() => {
    for (const socket of idle) socket.destroy();
  });
  await Promise.all(idle.map((socket) => once(socket, 'connect')));
  for (let at = 0; at < 20; at++) {
    const answer = (await exchange(port, 'GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')).toString();
    t.regex(answer, /hello$/);
  }
  const metrics = (await exchange(port, 'GET /m HTTP/1.0\r\n\r\n')).toString();
  t.true(Number(/limit="descriptors"} (\d+)/.exec(metrics)?.[1]) > 0, metrics);
});
