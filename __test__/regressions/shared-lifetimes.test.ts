/** Shared memory that other processes change or that a worker leaves open, and mapped files on a full file system. */
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import test, { type ExecutionContext } from 'ava';
import { MappedFile, memoryMaps, SharedBuffer, SharedRing } from 'zerosend';

import { openDescriptors, scratch, until } from '../support/files.js';

const ZEROSEND = import.meta.resolve('zerosend');
const root = process.getuid?.() === 0;
if (!root) console.warn('skipped: tests that mount a tmpfs need root');
const asRoot = root ? test.serial : test.serial.skip;

const named = () =>
  readdirSync('/proc/self/task').map((task) => {
    try {
      return readFileSync(`/proc/self/task/${task}/comm`, 'utf8').trim();
    } catch {
      return '';
    }
  });
const mappings = (file = 'memfd:zerosend') =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes('memfd:zerosend') || line.includes(file)).length;

/** The number of open descriptors once it is stable: cancelled work ends on other threads. */
async function steadyDescriptors(): Promise<number> {
  let count = -1;
  for (let same = 0; same < 10; await new Promise((resolve) => setTimeout(resolve, 20))) {
    const now = openDescriptors().length;
    same = now === count ? same + 1 : 0;
    count = now;
  }
  return count;
}

const WAITERS: Record<string, string> = {
  'for await of a ring': `const ring = await SharedRing.create(null); parentPort.postMessage(0);
    for await (const message of ring) console.log(message);`,
  'a full ring': `const ring = await SharedRing.create(null, { capacity: 4096, framing: 'bytes' });
    ring.write(Buffer.alloc(100_000)); parentPort.postMessage(0); await ring.drained();`,
  'pipeTo of a ring': `const ring = await SharedRing.create(null); parentPort.postMessage(0); await ring.pipeTo(1);`,
  'a descriptor from a socket': `const server = net.createServer({ pauseOnConnect: true }, (socket) => SharedRing.receive(socket)
      .catch(() => {})).listen('\\0zerosend-test-' + process.pid + '-' + threadId, () => {
      net.connect('\\0zerosend-test-' + process.pid + '-' + threadId, () => setTimeout(() => parentPort.postMessage(0), 30));
    });`,
  'a relay and a proxy': `const server = net.createServer().listen(0, '127.0.0.1', async () => {
      const proxy = await createProxy({ target: server.address().port, workers: 2 });
      const [a, b] = [1, 2].map(() => net.connect(server.address().port, '127.0.0.1'));
      relay(a, b).catch(() => {});
      setTimeout(() => parentPort.postMessage(0), 30);
    });`,
  'receiveFile and sendFile of pipes': `const pipes = [new Pipe(), new Pipe()];
    receiveFile(pipes[0].readFd, workerData).catch(() => {});
    sendFile(pipes[1].writeFd, process.execPath).catch(() => {});
    setTimeout(() => parentPort.postMessage(0), 30);`,
  'transfers of sockets whose peers do nothing': `const server = net.createServer({ pauseOnConnect: true }, (socket) => {
      receiveFile(socket, workerData).catch(() => {});
      sendFile(socket, process.execPath).catch(() => {});
      setTimeout(() => parentPort.postMessage(0), 30);
    }).listen(0, '127.0.0.1', () => net.connect(server.address().port, '127.0.0.1').pause());`,
  'relays with bytes under way': `const server = net.createServer((socket) => socket.pause()).listen(0, '127.0.0.1', async () => {
      const port = server.address().port;
      const proxy = await createProxy({ target: port, mirror: [{ file: workerData, policy: 'block' }, { connect: port }] });
      const [a, b] = [1, 2].map(() => net.connect(port, '127.0.0.1'));
      relay(a, b).catch(() => {});
      net.connect(proxy.address.port, '127.0.0.1').on('error', () => {}).write(Buffer.alloc(8 << 20));
      setTimeout(() => parentPort.postMessage(0), 30);
    });`,
  'mapped files': `const maps = await Promise.all(Array.from({ length: 4 }, () => MappedFile.open(workerData)));
    const read = () => Promise.all(maps.map((map) => map.read(0, map.size))).then(read);
    read();
    setTimeout(() => parentPort.postMessage(0), 30);`,
  'the page cache': `const work = () => Promise.all([pageCache.warm(workerData), pageCache.warm(process.execPath), pageCache.residency(process.execPath),
      pageCache.measure(workerData)]).then(work, work);
    work();
    setTimeout(() => parentPort.postMessage(0), 30);`,
  'a file server with connections': `const { port } = await createFileServer({ root: dirname(process.execPath), workers: 2 }).listen();
    for (const head of ['GET /' + basename(process.execPath) + ' HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n', 'GET /', '']) {
      net.connect(port, '127.0.0.1').on('error', () => {}).pause().write(head);
    }
    setTimeout(() => parentPort.postMessage(0), 30);`,
  'a file cache that is being filled': `const cache = new FileCache();
    const work = () => cache.preload([workerData, process.execPath, '/etc']).then(work, work);
    work();
    setTimeout(() => parentPort.postMessage(0), 30);`,
};

for (const [name, program] of Object.entries(WAITERS)) {
  test.serial(`terminated workers leave no descriptors, mappings and threads: ${name}`, async (t) => {
    const code = `import net from 'node:net';
      import { basename, dirname } from 'node:path';
      import { parentPort, threadId, workerData } from 'node:worker_threads';
      import { createFileServer, createProxy, FileCache, MappedFile, pageCache, Pipe, receiveFile, relay, sendFile, SharedRing } from '${ZEROSEND}';
      setInterval(() => {}, 1000);
      ${program}`;
    const url = new URL(`data:text/javascript,${encodeURIComponent(code)}`);
    const file = join(scratch(t), 'file');
    writeFileSync(file, Buffer.alloc(4 << 20, 1));
    const one = async () => {
      const worker = new Worker(url, { workerData: file });
      await once(worker, 'message');
      await worker.terminate();
    };
    // The first worker leaves what the process keeps: pooled pipes, threads of the reactor.
    await one();
    const before = { descriptors: await steadyDescriptors(), mappings: mappings(file) };
    for (let count = 0; count < 8; count++) {
      await one();
      // Sequentially, because concurrent workers would leave more pipes in the pool.
      await until(() => openDescriptors().length <= before.descriptors, 10_000, 'descriptors closed');
    }
    await until(() => mappings(file) <= before.mappings, 10_000, 'mappings gone');
    await until(
      () => !named().some((comm) => /^zerosend-(ring|pipeto|work|relay|server|log)/.test(comm)),
      10_000,
      `threads ended: ${named().filter((comm) => comm.startsWith('zerosend'))}`,
    );
    // The process keeps one reactor thread, and pool threads for a while.
    const kept = named().filter((comm) => comm.startsWith('zerosend-') && !/^zerosend-(disk|long)/.test(comm));
    t.true(kept.length <= 1, kept.join());
  });
}

test.serial('workers terminated while messages arrive leave no threads, descriptors and mappings', async (t) => {
  const ring = await SharedRing.create(null);
  t.teardown(() => ring.close());
  const code = `import { parentPort, workerData } from 'node:worker_threads';
    import { SharedRing } from '${ZEROSEND}';
    const ring = await SharedRing.create(null);
    const again = await SharedRing.open(ring.fd);
    parentPort.postMessage(0);
    setImmediate(function write() { ring.write('message'); setImmediate(write); });
    for await (const message of again) if (message.toString() !== 'message') process.abort();`;
  const url = new URL(`data:text/javascript,${encodeURIComponent(code)}`);
  const one = async (delay: number) => {
    const worker = new Worker(url);
    await once(worker, 'message');
    if (delay > 0) await new Promise((resolve) => setTimeout(resolve, delay));
    await worker.terminate();
  };
  await one(5);
  const before = { descriptors: openDescriptors().length, mappings: mappings() };
  const end = Date.now() + 6000;
  let count = 0;
  for (; Date.now() < end; count++) await one(count % 4);
  t.log(`${count} workers`);
  await until(() => openDescriptors().length <= before.descriptors, 10_000, 'descriptors closed');
  await until(() => mappings() <= before.mappings, 10_000, 'mappings gone');
  await until(() => !named().some((comm) => comm.startsWith('zerosend-ring')), 10_000, 'threads ended');
  t.true(count > 0);
});

test.serial('a ring that other processes can truncate is refused unless trusted', async (t) => {
  const directory = scratch(t);
  const path = join(directory, 'ring');
  const named = await SharedRing.create(`zerosend-test-${process.pid}`);
  t.teardown(() => named.unlink());
  // The process already has the ring open, so its descriptor adds no risk.
  const again = await SharedRing.open(named.fd);
  named.write('hello');
  await named.drained();
  t.is(again.read()?.toString(), 'hello');
  again.close();
  const kept = openSync(`/dev/shm/zerosend-test-${process.pid}`, 'r+');
  named.close();
  await t.throwsAsync(SharedRing.open(kept), {
    code: 'ERR_ZEROSEND_INVALID_ARGUMENT',
    message: /F_SEAL_SHRINK.*trust/,
  });
  await t.throwsAsync(SharedRing.open(kept, { trust: 1 as never }), { message: /invalid trust 1/ });
  (await SharedRing.open(kept, { trust: true })).close();
  closeSync(kept);
  writeFileSync(path, '');
  truncateSync(path, 8192 + 65_536);
  const fd = openSync(path, 'r+');
  t.teardown(() => closeSync(fd));
  await t.throwsAsync(SharedRing.open(fd), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT' });
  const sealed = await SharedRing.create(null);
  const other = await SharedRing.open(sealed.fd);
  t.is(other.capacity, sealed.capacity);
  other.close();
  sealed.close();
  // A buffer is not mapped, so a truncation is an error.
  const buffer = await SharedBuffer.open(fd);
  ftruncateSync(fd, 0);
  t.throws(() => buffer.read(0, 10), { code: 'ERR_ZEROSEND_TRUNCATED' });
  buffer.close();
});

/** A sparse file on a full tmpfs of 64 KiB, which is unmounted after the test. */
function fullTmpfs(t: ExecutionContext, size: number): string {
  const directory = scratch(t);
  const mount = join(directory, 'mount');
  mkdirSync(mount);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', mount]);
  t.teardown(() => execFileSync('umount', ['-l', mount]));
  const path = join(mount, 'sparse');
  writeFileSync(path, '');
  truncateSync(path, size);
  spawnSync('dd', ['if=/dev/zero', `of=${join(mount, 'filler')}`, 'bs=4096', 'count=100']);
  return path;
}

asRoot('a ring in a sparse file on a full tmpfs is ENOSPC, not a signal', async (t) => {
  const fd = openSync(fullTmpfs(t, 8192 + 65_536), 'r+');
  await t.throwsAsync(SharedRing.open(fd, { trust: true }), { code: 'ENOSPC' });
  closeSync(fd);
});

asRoot('a mapped file on a full tmpfs is ENOSPC when written and zeros when read', async (t) => {
  const path = fullTmpfs(t, 65_536);
  const shared = await MappedFile.open(path, { mode: 'shared' });
  const error = await t.throwsAsync(shared.write(0, Buffer.from('x')), { code: 'ENOSPC' });
  t.is((error as NodeJS.ErrnoException).path, path);
  t.deepEqual(await shared.read(0, 10), Buffer.alloc(10));
  truncateSync(path, 0);
  await t.throwsAsync(shared.write(0, Buffer.from('x')), { code: 'ERR_ZEROSEND_TRUNCATED' });
  await t.throwsAsync(shared.read(0, 10), { code: 'ERR_ZEROSEND_TRUNCATED' });
  shared.close();
});

test.serial('memoryMaps reports the path of a file whose name ends in " (deleted)"', async (t) => {
  const directory = scratch(t);
  const names = ['x (deleted)', 'y'].map((name) => join(directory, name));
  const files = [];
  for (const name of names) {
    writeFileSync(name, 'some bytes');
    files.push(await MappedFile.open(name));
  }
  execFileSync('rm', [names[1] as string]);
  const maps = await memoryMaps({ filter: directory });
  t.deepEqual(maps.map(({ path, deleted }) => [path, deleted]).sort(), [
    [names[0], false],
    [names[1], true],
  ]);
  for (const file of files) file.close();
});
