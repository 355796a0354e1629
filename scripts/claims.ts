/**
 * Verifies the claims of `docs/zero-copy.md` about the kernel. Prints one line per claim; exits with 1 when one does not hold.
 *
 *   npx tsx scripts/claims.ts
 */
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';

import { MappedFile, memoryMaps, Pipe, pageCache, sendFile, splice, tee } from 'zerosend';

import { makeFile, scratch } from '../examples/common.js';

let failed = 0;

function claim(text: string, holds: boolean, observed: string): void {
  if (!holds) failed += 1;
  console.log(`${holds ? 'holds' : 'FAILS'}  ${text}: ${observed}`);
}

/** Both ends of a connection, paused. */
async function pair(): Promise<[Socket, Socket]> {
  const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1').pause();
  const [socket] = await accepted;
  server.close();
  return [socket, client];
}

async function first(socket: Socket): Promise<string> {
  const [chunk] = (await once(socket.resume(), 'data')) as [Buffer];
  return chunk.toString('latin1', 0, 3);
}

const directory = scratch();
const path = join(directory, 'file');

/** Sends a file, changes it before the peer reads, and returns the first received bytes. */
async function sentThenChanged(method: 'sendfile' | 'splice' | 'mmap' | 'read-write' | 'vmsplice'): Promise<string> {
  writeFileSync(path, Buffer.alloc(16_384, 'old'));
  const [out, back] = await pair();
  await sendFile(out, path, { method });
  const file = openSync(path, 'r+');
  writeSync(file, 'new');
  closeSync(file);
  const received = await first(back);
  out.destroy();
  back.destroy();
  return received;
}

for (const method of ['sendfile', 'splice', 'vmsplice'] as const) {
  const received = await sentThenChanged(method);
  claim(
    `${method} does not copy: a later write to the file changes the received bytes`,
    received === 'new',
    `'${received}'`,
  );
}
for (const method of ['read-write', 'mmap'] as const) {
  const received = await sentThenChanged(method);
  claim(
    `${method} copies during the call: later writes do not change the received bytes`,
    received === 'old',
    `'${received}'`,
  );
}

// A pipe refers to pages; tee adds a second reference.
writeFileSync(path, Buffer.alloc(4096, 'old'));
const file = openSync(path, 'r+');
const [one, two] = [new Pipe(), new Pipe()];
splice(file, one, 4096, { fromOffset: 0 });
tee(one, two, 4096);
writeSync(file, 'new', 0);
const head = (pipe: Pipe) => {
  const bytes = Buffer.alloc(3);
  readSync(pipe.readFd, bytes);
  return bytes.toString();
};
const [left, right] = [head(one), head(two)];
claim(
  'a pipe refers to pages of the file, and after tee two pipes refer to the same pages',
  left === 'new' && right === 'new',
  `'${left}', '${right}'`,
);
one.close();
two.close();
closeSync(file);

// A mapping refers to the page cache; pages are loaded on first access.
const large = makeFile(16 * 2 ** 20, directory, 'large');
await pageCache.evict(large);
const cold = (await pageCache.residency(large)).resident;
const mapped = await MappedFile.open(large);
const before = (await memoryMaps({ filter: large }))[0]?.use?.rss ?? -1;
claim(
  'mapping a file reads nothing',
  cold > 0 || (before === 0 && mapped.residency().resident === 0),
  `${before} bytes resident`,
);
const touched = await MappedFile.open(large, { populate: true });
const after = touched.residency();
claim('MAP_POPULATE reads the whole file', after.resident === after.pages, `${after.resident} of ${after.pages} pages`);
mapped.close();
touched.close();

// System calls for 16 MiB.
const [out, back] = await pair();
back.resume();
const whole = await sendFile(out, large, { method: 'sendfile' });
const pieces = await sendFile(out, large, { method: 'read-write', bufferSize: 16_384 });
claim(
  'sendfile needs fewer calls than read and write',
  whole.syscalls * 10 < pieces.syscalls,
  `${whole.syscalls} and ${pieces.syscalls} for 16 MiB`,
);
out.destroy();
back.destroy();

/** The bytes that reading `large` fetches from the disk: `read_bytes`, see proc_pid_io(5). */
function bytesFromDisk(): number {
  const count = () => Number(/^read_bytes: (\d+)$/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1]);
  const start = count();
  readFileSync(large);
  return count() - start;
}
await pageCache.evict(large);
const [coldRead, hotRead] = [bytesFromDisk(), bytesFromDisk()];
claim(
  'a cold read fetches the file from the disk, a hot one does not',
  cold > 0 || (coldRead >= 16 * 2 ** 20 && hotRead < 2 ** 20),
  `${coldRead} and ${hotRead} bytes`,
);

process.exit(failed === 0 ? 0 : 1);
