/** The native server as a process: draining its backlog, accepting with many workers. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import { createFileServer, type FileServerOptions } from 'zerosend';

import { scratch, until } from '../support/files.js';
import { serialTestWith } from '../support/tools.js';
import { exchange, parseResponses, readAll } from '../support/wire.js';

const MAIN = new URL('../../dist/lib/cli/main.js', import.meta.url).pathname;
const REQUEST = 'GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n';

interface Serving {
  child: ChildProcess;
  /** Its standard error output. */
  output(): string;
}

/** Runs `zerosend serve` until it listens. */
async function serve(t: ExecutionContext, args: string[], wrapper: string[] = []): Promise<Serving> {
  const [command = '', ...rest] = [...wrapper, process.execPath, MAIN, 'serve', ...args];
  const child = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
  t.teardown(() => child.kill('SIGKILL'));
  let text = '';
  child.stderr.on('data', (chunk) => {
    text += chunk;
  });
  await until(() => /serving .* at \S+/.test(text), 20_000, 'the line with the URL');
  return { child, output: () => text };
}

function open(to: { port: number } | { path: string }): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect('port' in to ? { ...to, host: '127.0.0.1' } : to, () => resolve(socket));
    socket.once('error', reject);
  });
}

for (const flags of [
  ['--workers', '1'],
  ['--workers', '3'],
  ['--workers', '3', '--socket'],
]) {
  test.serial(`close({ drain }) serves connections in the backlog: ${flags.join(' ')}`, async (t) => {
    const root = scratch(t);
    writeFileSync(join(root, 'a.txt'), '0123456789');
    const path = join(root, 'socket');
    const isUnix = flags.includes('--socket');
    const { child, output } = await serve(t, [root, '-p', '0', ...flags, ...(isUnix ? [path] : [])]);
    const to = isUnix ? { path } : { port: Number(/:(\d+)\//.exec(output())?.[1]) };
    child.kill('SIGSTOP');
    const sockets = await Promise.all(Array.from({ length: 300 }, () => open(to)));
    const responses = sockets.map((socket) => {
      socket.write(REQUEST);
      return readAll(socket).catch((error) => error as Error);
    });
    child.kill('SIGTERM');
    child.kill('SIGCONT');
    let whole = 0;
    for (const bytes of await Promise.all(responses)) {
      if (bytes instanceof Buffer && bytes.subarray(-10).toString() === '0123456789') whole += 1;
    }
    t.is(whole, 300);
    if (child.exitCode === null) await once(child, 'exit');
    t.is(child.exitCode, 0);
  });
}

serialTestWith('strace')('with 16 workers on a Unix socket, each connection is accepted with one call', async (t) => {
  const root = scratch(t);
  writeFileSync(join(root, 'a.txt'), '0123456789');
  const path = join(root, 'socket');
  const trace = join(root, 'trace');
  const wrapper = ['strace', '-D', '-f', '-qq', '-e', 'trace=accept4,sendmsg', '-o', trace];
  const { child } = await serve(t, [root, '--socket', path, '--workers', '16'], wrapper);
  for (let round = 0; round < 25; round++) {
    const answers = Array.from({ length: 20 }, () =>
      exchange({ path }, 'GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
    );
    for (const answer of await Promise.all(answers)) t.is(parseResponses(answer)[0]?.status, 200);
  }
  child.kill('SIGTERM');
  await once(child, 'exit');
  const lines = readFileSync(trace, 'utf8').split('\n');
  const accepts = lines.filter((line) => /accept4\(|accept4 resumed/.test(line) && !line.includes('unfinished'));
  t.true(accepts.length >= 500 && accepts.length < 700, `${accepts.length} calls`);
  const answers = new Map<string, number>();
  for (const line of lines) {
    const thread = /^(\d+) .*sendmsg.*HTTP\/1\.1 200/.exec(line)?.[1];
    if (thread !== undefined) answers.set(thread, (answers.get(thread) ?? 0) + 1);
  }
  const counts = [...answers.values()];
  t.is(counts.length, 16, 'every worker answers');
  t.true(Math.max(...counts) - Math.min(...counts) <= 10, `spread evenly: ${counts.join(' ')}`);
});

test.serial('only a socket file without a listener is replaced', async (t) => {
  const root = scratch(t);
  writeFileSync(join(root, 'a.txt'), '0123456789');
  const path = join(root, 'socket');
  const start = async (options: Partial<FileServerOptions> = {}) => {
    const server = createFileServer({ root, path, workers: 1, ...options });
    await server.listen();
    t.teardown(() => server.close({ drain: 0 }));
    return server;
  };
  const { child } = await serve(t, [root, '--socket', path, '--workers', '1']);
  await t.throwsAsync(start(), { code: 'EADDRINUSE' }, 'a socket file in use is not replaced');
  t.is(
    parseResponses(await exchange({ path }, `${REQUEST}`.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'))).length,
    1,
  );
  child.kill('SIGKILL');
  await once(child, 'exit');
  t.true(existsSync(path), 'a killed server leaves its socket file');

  const server = await start({ socketMode: 0o666 });
  t.is(statSync(path).mode & 0o777, 0o666, 'the umask is ignored');
  await server.close();
  t.false(existsSync(path));
  for (const mode of [0o600, 0o660, 0o777]) {
    const other = await start({ socketMode: mode });
    t.is(statSync(path).mode & 0o777, mode);
    await other.close();
  }

  // Not replaced: a regular file, a dangling symbolic link.
  writeFileSync(path, 'contents');
  await t.throwsAsync(start(), { code: 'EADDRINUSE' });
  t.is(readFileSync(path, 'utf8'), 'contents');
  rmSync(path);
  symlinkSync(join(root, 'nothing'), path);
  await t.throwsAsync(start(), { code: 'EADDRINUSE' });
  rmSync(path);

  // A server removes only the socket file that it created.
  const first = await start();
  rmSync(path);
  const second = await start();
  await first.close();
  t.true(existsSync(path), 'the file of another server stays');
  await second.close();
});

test.serial('zerosend serve takes over the socket of a server that was killed', async (t) => {
  const root = scratch(t);
  writeFileSync(join(root, 'a.txt'), '0123456789');
  const path = join(root, 'socket');
  for (const flags of [[], ['--fastify'], ['--socket-mode', '660']]) {
    const { child } = await serve(t, [root, '--socket', path, ...flags]);
    if (flags.length === 2) t.is(statSync(path).mode & 0o777, 0o660);
    const answer = await exchange({ path }, REQUEST.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
    t.is(parseResponses(answer)[0]?.body.toString(), '0123456789');
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
});

test('the mode of a socket is checked', (t) => {
  const root = scratch(t);
  const wrong = (options: Partial<FileServerOptions>, message: RegExp) =>
    t.throws(() => createFileServer({ root, ...options }), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT', message });
  wrong({ path: 'socket', socketMode: 0o1777 }, /invalid socketMode 1023/);
  wrong({ path: 'socket', socketMode: 0.5 }, /invalid socketMode 0.5/);
  wrong({ socketMode: 0o600 }, /socketMode can only be used with a Unix socket/);
  wrong({ path: 'a\0b' }, /invalid path .*NUL/);
});
