import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { createServer, Socket } from 'node:net';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { pathToFileURL } from 'node:url';

import test from 'ava';
import { type Method, sendFile, type ZerosendError } from 'zerosend';

import { openDescriptors, pattern, patternFile, scratch, settled, sha256 } from './support/files.js';
import { pair, readAll, readExactly } from './support/wire.js';

// Serial, because descriptors are counted.
const serial = test.serial;
const MiB = 1024 * 1024;

for (const method of ['auto', 'sendfile', 'read-write'] as Method[]) {
  for (const kind of ['tcp', 'unix']) {
    for (const size of [0, 1, 4095, 4096, 65537, 5 * MiB + 3]) {
      serial(`${method} over ${kind}: ${size} bytes arrive unchanged`, async (t) => {
        const directory = scratch(t);
        const file = patternFile(directory, 'file', size);
        const { server, client } = await pair(t, kind === 'unix' ? join(directory, 'socket') : undefined);
        const received = readAll(client);
        const result = await sendFile(server, file, { method, head: 'head;' });
        server.end();
        const bytes = await received;
        t.is(bytes.subarray(0, 5).toString(), 'head;');
        t.is(sha256(bytes.subarray(5)), sha256(pattern(size)));
        t.is(result.bytes, size + 5);
        t.true(result.durationMs >= 0);
        if (size > 0) t.true(result.syscalls > 0);
        if (method !== 'auto' && size > 0) t.is(result.method, method);
      });
    }
  }
}

serial('every kind of source is sent, and the position of a handle does not change', async (t) => {
  const file = patternFile(scratch(t), 'file', 1000);
  const handle = await open(file);
  await handle.read(Buffer.alloc(7), 0, 7);
  const fd = openSync(file, 'r');
  t.teardown(() => closeSync(fd));
  for (const source of [file, pathToFileURL(file), handle, fd]) {
    const { server, client } = await pair(t);
    const received = readAll(client);
    const result = await sendFile(server, source, { offset: 10, length: 500 });
    server.end();
    t.is(result.bytes, 500);
    t.deepEqual(await received, pattern(1000).subarray(10, 510));
  }
  const { buffer } = await handle.read(Buffer.alloc(1), 0, 1);
  t.is(buffer[0], pattern(1000)[7], 'the position is unchanged');
  await handle.close();
});

serial('files are sent to descriptors of sockets, pipes and regular files', async (t) => {
  const directory = scratch(t);
  const file = patternFile(directory, 'file', 3 * MiB + 1);
  const before = openDescriptors();

  const out = openSync(join(directory, 'out'), 'w');
  const toFile = await sendFile(out, file, { head: 'x' });
  closeSync(out);
  t.is(toFile.bytes, 3 * MiB + 2);
  t.is(sha256(readFileSync(join(directory, 'out')).subarray(1)), sha256(pattern(3 * MiB + 1)));

  const { server, client } = await pair(t);
  const received = readExactly(client, 3 * MiB + 1);
  const toSocket = await sendFile((server as unknown as { _handle: { fd: number } })._handle.fd, file);
  t.is(toSocket.method, 'sendfile');
  t.is(sha256(await received), sha256(pattern(3 * MiB + 1)));

  const fifo = join(directory, 'fifo');
  execFileSync('mkfifo', [fifo]);
  const reader = readAll((await import('node:fs')).createReadStream(fifo));
  const writer = await open(fifo, 'w');
  const toPipe = await sendFile(writer.fd, file);
  await writer.close();
  t.is(toPipe.bytes, 3 * MiB + 1);
  t.is(sha256(await reader), sha256(pattern(3 * MiB + 1)));
  server.destroy();
  client.destroy();
  await settled(t, before);
});

serial('bytes are sent in order: writes before, between and after two transfers', async (t) => {
  const file = patternFile(scratch(t), 'file', 8 * MiB);
  const { server, client } = await pair(t);
  const received = readAll(client);
  const before = pattern(3 * MiB, 77);
  server.write(before);
  const first = sendFile(server, file);
  server.write('between');
  const second = sendFile(server, file, { offset: 4, length: 12 });
  server.end('after');
  await Promise.all([first, second]);
  const wanted = Buffer.concat([
    before,
    pattern(8 * MiB),
    Buffer.from('between'),
    pattern(8 * MiB).subarray(4, 16),
    Buffer.from('after'),
  ]);
  t.is(sha256(await received), sha256(wanted));
  t.is(server.write, Socket.prototype.write, 'the methods of the socket are restored');
});

serial('progress increases and is reported at the end', async (t) => {
  const file = patternFile(scratch(t), 'file', 4 * MiB);
  const { server, client } = await pair(t);
  client.resume();
  const seen: number[] = [];
  await sendFile(server, file, { onProgress: (bytes) => seen.push(bytes) });
  t.is(seen.at(-1), 4 * MiB);
  t.deepEqual(
    seen,
    [...seen].sort((a, b) => a - b),
  );
});

serial(
  'aborting before the start, while waiting, and during the transfer, with the number of bytes to resume from',
  async (t) => {
    const file = patternFile(scratch(t), 'file', 32 * MiB);
    const before = openDescriptors();
    const { server, client } = await pair(t);

    const early = AbortSignal.abort(new Error('why'));
    const refused = await t.throwsAsync(sendFile(server, file, { signal: early }));
    t.is((refused as ZerosendError).code, 'ABORT_ERR');
    t.is(refused?.name, 'AbortError');
    t.is(refused?.cause, early.reason);

    // The peer does not read, so the first transfer is blocked and the second waits.
    const controller = new AbortController();
    const waiting = new AbortController();
    const first = sendFile(server, file, { signal: controller.signal });
    const second = sendFile(server, file, { signal: waiting.signal });
    waiting.abort();
    t.is(((await t.throwsAsync(second)) as ZerosendError).code, 'ABORT_ERR');
    setTimeout(() => controller.abort(), 50);
    const error = (await t.throwsAsync(first)) as ZerosendError;
    t.is(error.code, 'ABORT_ERR');
    const sent = error.bytes as number;
    t.true(sent > 0 && sent < 32 * MiB);

    const received = readAll(client);
    await sendFile(server, file, { offset: sent });
    server.end();
    t.is(sha256(await received), sha256(pattern(32 * MiB)), 'resumed at the byte where it stopped');
    client.destroy();
    await settled(t, before);
  },
);

serial('aborting a transfer to a descriptor', async (t) => {
  const file = patternFile(scratch(t), 'file', 32 * MiB);
  const before = openDescriptors();
  const { server, client } = await pair(t);
  const controller = new AbortController();
  const sending = sendFile((server as unknown as { _handle: { fd: number } })._handle.fd, file, {
    signal: controller.signal,
  });
  setTimeout(() => controller.abort(), 50);
  const error = (await t.throwsAsync(sending)) as ZerosendError;
  t.is(error.code, 'ABORT_ERR');
  t.is(error.name, 'AbortError');
  t.true((error.bytes as number) > 0);
  server.destroy();
  client.destroy();
  await settled(t, before);
});

for (const kind of ['socket', 'descriptor']) {
  serial(`a ${kind} without progress times out`, async (t) => {
    const file = patternFile(scratch(t), 'file', 32 * MiB);
    const { server } = await pair(t);
    const target = kind === 'socket' ? server : (server as unknown as { _handle: { fd: number } })._handle.fd;
    const error = (await t.throwsAsync(sendFile(target, file, { timeout: 100 }))) as ZerosendError;
    t.is(error.code, 'ERR_ZEROSEND_TIMEOUT');
    t.regex(error.message, /100 ms/);
  });

  serial(`a file truncated during the transfer to a ${kind} is an error`, async (t) => {
    const file = patternFile(scratch(t), 'file', 32 * MiB);
    const before = openDescriptors();
    const { server, client } = await pair(t);
    const target = kind === 'socket' ? server : (server as unknown as { _handle: { fd: number } })._handle.fd;
    const sending = sendFile(target, file);
    setTimeout(() => {
      truncateSync(file, MiB);
      client.resume();
    }, 50);
    const error = (await t.throwsAsync(sending)) as ZerosendError;
    t.is(error.code, 'ERR_ZEROSEND_TRUNCATED');
    if (kind === 'socket') t.true(server.destroyed, 'the connection is closed');
    server.destroy();
    client.destroy();
    await settled(t, before);
  });

  serial(`a transfer to a ${kind} fails when the peer resets the connection`, async (t) => {
    const file = patternFile(scratch(t), 'file', 32 * MiB);
    const before = openDescriptors();
    const { server, client } = await pair(t);
    const target = kind === 'socket' ? server : (server as unknown as { _handle: { fd: number } })._handle.fd;
    const sending = sendFile(target, file);
    setTimeout(() => client.resetAndDestroy(), 50);
    const error = (await t.throwsAsync(sending)) as ZerosendError;
    t.true(['EPIPE', 'ECONNRESET', 'ERR_ZEROSEND_CLOSED'].includes(error.code), error.code);
    server.destroy();
    await settled(t, before);
  });
}

serial('errors of invalid input have a code and a path, and no descriptor is leaked', async (t) => {
  const directory = scratch(t);
  const file = patternFile(directory, 'file', 100);
  mkdirSync(join(directory, 'dir'));
  execFileSync('mkfifo', [join(directory, 'fifo')]);
  const listener = createServer().listen(join(directory, 'socket'));
  await once(listener, 'listening');
  const { server } = await pair(t);
  const closed = await open(file);
  await closed.close();
  const before = openDescriptors();

  const cases: [string, unknown, unknown, object, string, (string | undefined)?][] = [
    ['missing', server, join(directory, 'nope'), {}, 'ENOENT', join(directory, 'nope')],
    ['directory', server, join(directory, 'dir'), {}, 'ERR_ZEROSEND_NOT_REGULAR_FILE', join(directory, 'dir')],
    ['FIFO', server, join(directory, 'fifo'), {}, 'ERR_ZEROSEND_NOT_REGULAR_FILE', join(directory, 'fifo')],
    ['socket', server, join(directory, 'socket'), {}, 'ERR_ZEROSEND_NOT_REGULAR_FILE', join(directory, 'socket')],
    ['NUL', server, 'a\0b', {}, 'ERR_ZEROSEND_INVALID_ARGUMENT', 'a\0b'],
    ['file URL of another kind', server, new URL('http://x/'), {}, 'ERR_ZEROSEND_INVALID_ARGUMENT'],
    ['no source', server, undefined, {}, 'ERR_ZEROSEND_INVALID_ARGUMENT'],
    ['closed FileHandle', server, closed, {}, 'ERR_ZEROSEND_CLOSED'],
    ['source descriptor that is not open', server, 98765, {}, 'EBADF'],
    ['target descriptor that is not open', 98765, file, {}, 'EBADF'],
    ['negative target', -1, file, {}, 'ERR_ZEROSEND_INVALID_ARGUMENT'],
    ['no target', null, file, {}, 'ERR_ZEROSEND_INVALID_ARGUMENT'],
    ['a stream as target', new PassThrough(), file, {}, 'ERR_ZEROSEND_INVALID_ARGUMENT'],
    ['negative offset', server, file, { offset: -1 }, 'ERR_ZEROSEND_OUT_OF_RANGE'],
    ['fractional offset', server, file, { offset: 0.5 }, 'ERR_ZEROSEND_OUT_OF_RANGE'],
    ['NaN length', server, file, { length: Number.NaN }, 'ERR_ZEROSEND_OUT_OF_RANGE'],
    ['huge offset', server, file, { offset: 2 ** 53 }, 'ERR_ZEROSEND_OUT_OF_RANGE'],
    ['offset beyond the end', server, file, { offset: 101 }, 'ERR_ZEROSEND_OUT_OF_RANGE'],
    ['length beyond the end', server, file, { offset: 50, length: 51 }, 'ERR_ZEROSEND_OUT_OF_RANGE'],
    ['offset of another type', server, file, { offset: '1' }, 'ERR_ZEROSEND_INVALID_ARGUMENT'],
    ['unknown method', server, file, { method: 'magic' }, 'ERR_ZEROSEND_INVALID_ARGUMENT'],
    ['negative timeout', server, file, { timeout: -1 }, 'ERR_ZEROSEND_INVALID_ARGUMENT'],
    ['signal of another type', server, file, { signal: {} }, 'ERR_ZEROSEND_INVALID_ARGUMENT'],
    ['onProgress of another type', server, file, { onProgress: 1 }, 'ERR_ZEROSEND_INVALID_ARGUMENT'],
    ['head of another type', server, file, { head: 1 }, 'ERR_ZEROSEND_INVALID_ARGUMENT'],
  ];
  for (const [name, target, source, options, code, path] of cases) {
    const error = (await t.throwsAsync(
      sendFile(target as Socket, source as string, options),
      undefined,
      name,
    )) as ZerosendError;
    t.is(error.code, code, name);
    t.true(error.message.length > 10, name);
    if (path !== undefined) t.is(error.path, path, name);
  }
  if (process.getuid?.() !== 0) {
    writeFileSync(join(directory, 'secret'), 'x', { mode: 0 });
    const error = (await t.throwsAsync(sendFile(server, join(directory, 'secret')))) as ZerosendError;
    t.is(error.code, 'EACCES');
  } else {
    t.log('skipped: an unreadable file, because root reads everything');
  }
  server.destroy();
  t.is(((await t.throwsAsync(sendFile(server, file))) as ZerosendError).code, 'ERR_ZEROSEND_CLOSED');
  listener.close();
  await settled(t, before);
});

serial('empty files and empty ranges are sent', async (t) => {
  const directory = scratch(t);
  const { server, client } = await pair(t);
  const received = readAll(client);
  t.is((await sendFile(server, patternFile(directory, 'empty', 0))).bytes, 0);
  t.is((await sendFile(server, patternFile(directory, 'file', 10), { offset: 10 })).bytes, 0);
  t.is((await sendFile(server, patternFile(directory, 'file2', 10), { length: 0, head: 'h' })).bytes, 1);
  server.end();
  t.is((await received).toString(), 'h');
});

serial('the process exits when no transfer is running', (t) => {
  const script = `import { sendFile } from 'zerosend'; import { openSync } from 'node:fs';
    await sendFile(openSync('/dev/null', 'w'), process.argv[1] ?? 'package.json'); console.log('sent');`;
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    timeout: 10_000,
  });
  t.is(out.trim(), 'sent');
});
