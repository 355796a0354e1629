/** The access log: every line is written completely or counted as lost, and requests do not wait for it. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import { createFileServer, type FileServer, type FileServerOptions, MappedFile, SharedRing } from 'zerosend';

import { fuse, mount } from '../support/faultfs.js';
import { scratch, until } from '../support/files.js';
import { small, smallDirectory } from '../support/streams.js';

const MAIN = new URL('../../dist/lib/cli/main.js', import.meta.url).pathname;

async function serve(t: ExecutionContext, log: FileServerOptions['log']): Promise<{ server: FileServer; url: URL }> {
  const root = scratch(t);
  writeFileSync(join(root, 'a.txt'), 'a');
  const server = createFileServer({ root, workers: 2, log });
  t.teardown(() => server.close({ drain: 0 }));
  const address = await server.listen();
  if (!('url' in address)) throw new Error('it listens on a port');
  return { server, url: new URL(address.url) };
}

/** Sends `count` requests on one connection, with their number in the query. */
async function ask(url: URL, count: number, from = 0, padding = ''): Promise<void> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  const one = (at: number) =>
    new Promise<void>((resolve, reject) => {
      http
        .get({ agent, host: url.hostname, port: url.port, path: `/a.txt?n=${from + at}&${padding}` }, (response) => {
          response.resume().on('end', resolve).on('error', reject);
        })
        .on('error', reject);
    });
  await Promise.all(Array.from({ length: count }, (_, at) => one(at)));
  agent.destroy();
}

/** The numbers of the requests in complete log lines. */
function numbers(t: ExecutionContext, text: string): number[] {
  if (text === '') return [];
  t.true(text.endsWith('\n'), 'the last line is complete');
  return text
    .slice(0, -1)
    .split('\n')
    .map((line) => {
      const found = /^\S+ - - \[[^\]]+\] "GET \/a\.txt\?n=(\d+)&x* HTTP\/1\.1" 200 \d+ "-" "-"$/.exec(line);
      if (found === null) throw new Error(`not a line: ${JSON.stringify(line)}`);
      return Number(found[1]);
    });
}

const sorted = (values: number[]) => [...values].sort((a, b) => a - b);
const range = (count: number, from = 0) => Array.from({ length: count }, (_, at) => from + at);

/** Reads a FIFO or pipe without blocking. */
function readNow(fd: number): string {
  const pieces: Buffer[] = [];
  for (;;) {
    const buffer = Buffer.alloc(1 << 20);
    try {
      const count = readSync(fd, buffer);
      if (count === 0) break;
      pieces.push(buffer.subarray(0, count));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') break;
      throw error;
    }
  }
  return Buffer.concat(pieces).toString();
}

test('with a FIFO that is not read, close() returns and lost lines are counted', async (t) => {
  const fifo = join(scratch(t), 'fifo');
  execFileSync('mkfifo', [fifo]);
  const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
  t.teardown(() => closeSync(reader));
  const { server, url } = await serve(t, { format: 'combined', path: fifo });
  const padding = 'x'.repeat(2000);
  await ask(url, 300, 0, padding);
  t.is(server.stats().requests, 300);
  await server.close({ drain: 100 });
  const written = numbers(t, readNow(reader));
  t.true(written.length > 0 && written.length < 300);
  t.is(server.stats().logLost, 300 - written.length);
  t.is(new Set(written).size, written.length);
});

test('zerosend serve --log to a pipe that is not read exits at SIGTERM', async (t) => {
  const root = scratch(t);
  writeFileSync(join(root, 'a.txt'), 'a');
  const child = spawn(
    'sh',
    ['-c', '"$@" | sleep 100', 'sh', process.execPath, MAIN, 'serve', root, '-p', '0', '--log', 'combined'],
    {
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  t.teardown(() => {
    try {
      process.kill(-(child.pid as number), 'SIGKILL');
    } catch {
      // The process has exited.
    }
  });
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    output += text;
  });
  await until(() => /http:\S+/.test(output), 20_000, 'the server');
  await ask(new URL(/http:\S+/.exec(output)?.[0] as string), 300, 0, 'x'.repeat(2000));
  const pid = Number(
    execFileSync('pgrep', ['-f', `${MAIN} serve ${root}`], { encoding: 'utf8' })
      .trim()
      .split('\n')
      .at(-1),
  );
  process.kill(pid, 'SIGTERM');
  const hasExited = () => {
    try {
      process.kill(pid, 0);
      return readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
    } catch {
      return true;
    }
  };
  await until(hasExited, 20_000, 'the end of the server');
  t.pass();
});

test('a FIFO with a reader receives every line; one without a reader is refused at once', async (t) => {
  const fifo = join(scratch(t), 'fifo');
  execFileSync('mkfifo', [fifo]);
  const root = scratch(t);
  for (const [path, error] of [
    [fifo, { code: 'ENXIO', message: /no process reads this FIFO/ }],
    [root, { code: 'EISDIR' }],
    [join(root, 'missing', 'log'), { code: 'ENOENT' }],
  ] as const) {
    await t.throwsAsync(createFileServer({ root, log: { format: 'combined', path } }).listen(), error);
  }
  const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
  t.teardown(() => closeSync(reader));
  const { server, url } = await serve(t, { format: 'combined', path: fifo });
  let text = '';
  const reading = setInterval(() => {
    text += readNow(reader);
  }, 5);
  await ask(url, 2000, 0, 'x'.repeat(500));
  await server.close();
  clearInterval(reading);
  text += readNow(reader);
  t.deepEqual(sorted(numbers(t, text)), range(2000));
  t.is(server.stats().logLost, 0);
});

small('on a full disk lines are complete or counted as lost, and logging continues when there is room', async (t) => {
  const directory = smallDirectory(t, 'size=256k');
  const path = join(directory, 'log');
  writeFileSync(join(directory, 'filler'), Buffer.alloc(100_000));
  const { server, url } = await serve(t, { format: 'combined', path });
  await ask(url, 2000, 0, 'x'.repeat(100));
  await until(() => server.stats().logLost > 100);
  rmSync(join(directory, 'filler'));
  await ask(url, 100, 2000, 'x'.repeat(100));
  await server.close();
  const written = numbers(t, readFileSync(path, 'utf8'));
  t.is(new Set(written).size, written.length);
  t.is(written.length + server.stats().logLost, 2100);
  t.deepEqual(sorted(written.filter((number) => number >= 2000)), range(100, 2000));
});

test('every line to a full device is counted as lost', async (t) => {
  const { server, url } = await serve(t, { format: 'combined', path: '/dev/full' });
  await ask(url, 50);
  await server.close();
  t.is(server.stats().logLost, 50);
});

fuse('a disk that hangs delays neither requests nor close()', async (t) => {
  const faults = await mount(t);
  const { server, url } = await serve(t, { format: 'combined', path: join(faults.path, 'log') });
  await faults.set('write', { hang: true }, '/log');
  await ask(url, 10);
  await faults.held('write');
  await ask(url, 200, 10);
  await server.close({ drain: 100 });
  t.is(server.stats().logLost, 210);
  await faults.clear();
});

test('after renames, reopen(), deletion and truncation every line is in one of the files', async (t) => {
  const path = join(scratch(t), 'log');
  const { server, url } = await serve(t, { format: 'combined', path });
  t.is(statSync(path).mode & 0o777, 0o644 & ~process.umask());
  let sent = 0;
  const send = async (into: string) => {
    await ask(url, 100, sent);
    sent += 100;
    await until(() => readFileSync(into, 'utf8').includes(`n=${sent - 1}&`));
    await until(() => server.stats().requests === sent && readFileSync(into, 'utf8').split('\n').length > 100);
  };
  const holds = (file: string, from: number, to: number) =>
    t.deepEqual(sorted(numbers(t, readFileSync(file, 'utf8'))), range(to - from, from));
  await send(path);
  renameSync(path, `${path}.1`);
  await send(`${path}.1`);
  await server.reopen();
  await send(path);
  holds(`${path}.1`, 0, 200);
  holds(path, 200, 300);
  copyFileSync(path, `${path}.2`);
  truncateSync(path);
  await send(path);
  holds(`${path}.2`, 200, 300);
  holds(path, 300, 400);
  rmSync(path);
  await server.reopen();
  await send(path);
  holds(path, 400, 500);
  renameSync(path, `${path}.3`);
  mkdirSync(path);
  await t.throwsAsync(server.reopen(), { code: 'EISDIR' });
  await send(`${path}.3`);
  holds(`${path}.3`, 400, 600);
  await server.close();
  await t.throwsAsync(server.reopen(), { code: 'ERR_ZEROSEND_CLOSED' });
  t.is(server.stats().logLost, 0);
});

small('reopen() on a file system without room keeps the file', async (t) => {
  const directory = smallDirectory(t, 'nr_inodes=3');
  const path = join(directory, 'log');
  const { server, url } = await serve(t, { format: 'combined', path, mode: 0o600 });
  t.is(statSync(path).mode & 0o777, 0o600);
  writeFileSync(join(directory, 'last inode'), '');
  renameSync(path, `${path}.1`);
  await t.throwsAsync(server.reopen(), { code: 'ENOSPC' });
  await ask(url, 20);
  await server.close();
  t.deepEqual(sorted(numbers(t, readFileSync(`${path}.1`, 'utf8'))), range(20));
});

test('reopen() while a FIFO is full writes queued lines to the new file', async (t) => {
  const path = join(scratch(t), 'log');
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  t.teardown(() => closeSync(reader));
  const { server, url } = await serve(t, { format: 'combined', path });
  await ask(url, 200, 0, 'x'.repeat(2000));
  renameSync(path, `${path}.1`);
  await server.reopen();
  await until(() => statSync(path).size > 0);
  await ask(url, 10, 200);
  await server.close();
  const written = [...numbers(t, readNow(reader)), ...numbers(t, readFileSync(path, 'utf8'))];
  t.is(written.length + server.stats().logLost, 210);
  t.true(server.stats().logLost <= 1);
  t.is(new Set(written).size, written.length);
});

test('/dev/stdout can be a file, a pipe or a socket', async (t) => {
  const directory = scratch(t);
  writeFileSync(join(directory, 'a.txt'), 'a');
  const script = `
    import { createFileServer } from 'zerosend';
    import http from 'node:http';
    const server = createFileServer({ root: ${JSON.stringify(directory)}, workers: 1,
      log: { format: 'combined', path: '/dev/stdout' } });
    const { url } = await server.listen();
    console.log('before');
    for (let n = 0; n < 20; n++) await (await fetch(url + 'a.txt?n=' + n + '&')).text();
    await server.close();
    console.log('after');`;
  const cwd = new URL('../..', import.meta.url).pathname;
  const args = ['--input-type=module', '-e', script];
  const check = (text: string) => {
    const lines = text.trim().split('\n');
    t.is(lines[0], 'before');
    t.is(lines.at(-1), 'after');
    t.deepEqual(
      lines.slice(1, -1).map((line) => Number(/n=(\d+)&/.exec(line)?.[1])),
      range(20),
    );
  };
  const file = join(directory, 'out');
  const out = openSync(file, 'w');
  await once(spawn(process.execPath, args, { cwd, stdio: ['ignore', out, 'inherit'] }), 'exit');
  closeSync(out);
  check(readFileSync(file, 'utf8'));
  check(execFileSync('sh', ['-c', '"$@" | cat', 'sh', process.execPath, ...args], { cwd, encoding: 'utf8' }));
  const child = spawn(process.execPath, args, { cwd, stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (piece) => {
    text += piece;
  });
  await once(child, 'close');
  check(text);
});

test('zerosend serve has --log-file and --log-mode, and SIGHUP reopens the log', async (t) => {
  const root = scratch(t);
  writeFileSync(join(root, 'a.txt'), 'a');
  const path = join(scratch(t), 'log');
  const args = [MAIN, 'serve', root, '-p', '0', '--log-file', path, '--log-mode', '600'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'pipe'] });
  t.teardown(() => child.kill('SIGKILL'));
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    output += text;
  });
  await until(() => /http:\S+/.test(output), 20_000, 'the server');
  const url = new URL(/http:\S+/.exec(output)?.[0] as string);
  await ask(url, 10);
  t.is(statSync(path).mode & 0o777, 0o600);
  renameSync(path, `${path}.1`);
  child.kill('SIGHUP');
  await until(() => output.includes('files reopened'));
  await ask(url, 10, 10);
  child.kill('SIGTERM');
  const [code] = await once(child, 'exit');
  t.is(code, 0);
  const written = [`${path}.1`, path].map((file) => sorted(numbers(t, readFileSync(file, 'utf8'))));
  t.deepEqual(written.flat(), range(20));
  t.true((written[1]?.length ?? 0) >= 10);
});

test('other paths that may be FIFOs are opened without blocking', async (t) => {
  const fifo = join(scratch(t), 'fifo');
  execFileSync('mkfifo', [fifo]);
  const ring = await SharedRing.create(null);
  t.teardown(() => ring.close());
  await t.throwsAsync(ring.pipeTo(fifo), { code: 'ENXIO' });
  await t.throwsAsync(MappedFile.open(fifo), { code: 'ERR_ZEROSEND_NOT_REGULAR_FILE' });
  const bench = spawn(process.execPath, [MAIN, 'bench', '--size', '1k', '--html', fifo], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let output = '';
  bench.stderr.setEncoding('utf8').on('data', (text) => {
    output += text;
  });
  const [code] = await once(bench, 'exit');
  t.is(code, 1);
  t.regex(output, /ENXIO/);
  // The JavaScript thread and the threads of libuv are not blocked.
  const server = net.createServer().listen(0);
  await once(server, 'listening');
  server.close();
});
