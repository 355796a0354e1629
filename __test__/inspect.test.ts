/** probe, memoryMaps and pageCache, compared with strace, procfs and fincore. */
import { execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, statfsSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import test, { type ExecutionContext } from 'ava';
import { MappedFile, memoryMaps, type Probe, pageCache, probe } from 'zerosend';

import { pattern, patternFile, scratch, sha256 } from './support/files.js';
import { testWith } from './support/tools.js';

const MAIN = new URL('../dist/lib/cli/main.js', import.meta.url).pathname;
const TMPFS = 0x01021994;
const run = promisify(execFile);

/** Tests that need a file system on a disk. */
const onDisk = statfsSync(tmpdir()).type === TMPFS ? test.skip : test;
if (onDisk === test.skip) console.warn(`skipped: ${tmpdir()} is in memory; set TMPDIR to a directory on a disk`);

/** The system call of each feature. */
const CALLS: Record<string, string> = {
  sendfile: 'sendfile',
  splice: 'splice',
  tee: 'tee',
  vmsplice: 'vmsplice',
  copy_file_range: 'copy_file_range',
  openat2: 'openat2',
  statx: 'statx',
  'preadv2(RWF_NOWAIT)': 'preadv2',
  // Older versions of strace print only its number.
  cachestat: '451',
  process_vm_readv: 'process_vm_readv',
  memfd: 'memfd_create',
  'open file description locks': 'fcntl',
  SO_REUSEPORT: 'setsockopt',
  io_uring: 'io_uring_setup',
  MSG_ZEROCOPY: 'sendmsg',
  'kernel TLS': 'setsockopt',
};

/** A call as strace prints it. */
const nameOf = (call: string) => (call === '451' ? 'syscall_0x1c3' : call);

/** Arguments that distinguish the call from others of the same name. */
const MARKS: Record<string, RegExp> = {
  'preadv2(RWF_NOWAIT)': /RWF_NOWAIT|0x8\)/,
  'open file description locks': /F_OFD_SETLK/,
  SO_REUSEPORT: /SO_REUSEPORT/,
  MSG_ZEROCOPY: /MSG_ZEROCOPY/,
  'kernel TLS': /TCP_ULP/,
};

/** Runs `zerosend probe --json` under strace: its result and its system calls. */
function traced(t: ExecutionContext, ...inject: string[]): { found: Probe; trace: string } {
  const directory = scratch(t);
  const node = [process.execPath, MAIN, 'probe', '--json'];
  const wanted = inject.length > 0 ? inject.flatMap((one) => ['-e', `inject=${one}`]) : [];
  // One file for each thread: in a common file, calls of other threads divide a call into two lines.
  const { stdout, stderr } = spawnSync('strace', ['-ff', '-qq', '-o', join(directory, 'trace'), ...wanted, ...node]);
  t.true(stdout.length > 0, stderr.toString());
  const trace = readdirSync(directory).map((name) => readFileSync(join(directory, name), 'latin1').replace(/^/gm, ' '));
  return { found: JSON.parse(stdout.toString()), trace: trace.join('') };
}

testWith('strace')('probe: each result is that of a system call', (t) => {
  const { found, trace } = traced(t);
  t.deepEqual(found.mechanisms.map(({ name }) => name).sort(), Object.keys(CALLS).sort());
  const lines = trace.split('\n');
  for (const { name, available, code, syscall } of found.mechanisms) {
    const calls = lines.filter(
      (line) => line.includes(` ${nameOf(CALLS[name] as string)}(`) && (MARKS[name]?.test(line) ?? true),
    );
    t.true(calls.length > 0, `${name} was not tried`);
    if (available)
      t.true(
        calls.some((call) => / = \d+/.test(call)),
        `${name}: ${calls.join('\n')}`,
      );
    else
      t.true(
        lines.some((line) => line.includes(` ${syscall}(`) && line.includes(` = -1 ${code} `)),
        `${name}: ${code}`,
      );
  }
  t.is(found.kernel, execFileSync('uname', ['-r']).toString().trim());
  t.is(found.pageSize, Number(execFileSync('getconf', ['PAGESIZE'])));
  t.is(found.pipes.maxSize, Number(readFileSync('/proc/sys/fs/pipe-max-size')));
  t.is(found.pipes.userPagesSoft, Number(readFileSync('/proc/sys/fs/pipe-user-pages-soft')));
  for (const { name, up } of found.interfaces) {
    const flags = Number(readFileSync(`/sys/class/net/${name}/flags`, 'latin1'));
    t.is(up, (flags & 1) === 1, name);
  }
  t.true(found.interfaces.some(({ name, loopback }) => name === 'lo' && loopback));
});

testWith('strace')('probe: a refused system call makes its feature unavailable', (t) => {
  // Node needs `fcntl`, `setsockopt` and `statx`. `cachestat` is refused in the Rust tests.
  for (const error of ['ENOSYS', 'EPERM'] as const) {
    const calls = [
      'sendfile',
      'splice',
      'tee',
      'vmsplice',
      'copy_file_range',
      'openat2',
      'process_vm_readv',
      'memfd_create',
      'io_uring_setup',
      'preadv2',
    ];
    const { found } = traced(t, `${calls.join(',')}:error=${error}`);
    for (const { name, available, code, without } of found.mechanisms) {
      if (!calls.includes(CALLS[name] as string)) continue;
      t.false(available, name);
      t.is(code, error, name);
      t.true(without !== undefined || ['copy_file_range', 'io_uring'].includes(name), name);
    }
  }
});

/** Runs a program with a kernel that refuses these calls. Returns its output. */
function without(t: ExecutionContext, calls: string, program: string): string {
  const log = join(scratch(t), 'trace');
  const node = [process.execPath, '--input-type=module', '-e', program];
  const { stdout, stderr, status } = spawnSync('strace', ['-f', '-qq', '-o', log, '-e', `inject=${calls}`, ...node]);
  t.is(status, 0, stderr.toString());
  t.regex(readFileSync(log, 'latin1'), /INJECTED/, `${calls} was not called`);
  return stdout.toString().trim();
}

testWith('strace')('files are sent without refused system calls', (t) => {
  const root = scratch(t);
  const path = patternFile(root, 'file.bin', 3_000_000);
  const expected = sha256(pattern(3_000_000));
  const read = `const all = async (socket) => {
    const hash = createHash('sha256'); for await (const bytes of socket) hash.update(bytes); return hash.digest('hex'); };`;
  const imports = `import net from 'node:net'; import { once } from 'node:events'; import { createHash } from 'node:crypto';
    import * as zerosend from 'zerosend'; ${read}`;
  const sending = `${imports}
    const server = net.createServer(async (socket) => {
      const { method } = await zerosend.sendFile(socket, ${JSON.stringify(path)}, OPTIONS); console.log(method); socket.end(); server.close();
    }).listen(0); await once(server, 'listening');
    console.log(await all(net.connect(server.address().port)));`;
  for (const [calls, options] of [
    ['sendfile:error=ENOSYS', '{}'],
    ['sendfile:error=EPERM', `{ method: 'sendfile' }`],
    ['splice:error=ENOSYS', `{ method: 'splice' }`],
    ['vmsplice:error=EPERM', `{ method: 'vmsplice' }`],
  ] as const) {
    const lines = without(t, calls, sending.replace('OPTIONS', options)).split('\n').sort();
    t.deepEqual(lines, [expected, 'read-write'].sort(), calls);
  }
  for (const calls of ['preadv2:error=ENOSYS', 'preadv2:error=EPERM']) {
    t.true(without(t, calls, sending.replace('OPTIONS', '{}')).includes(expected), calls);
  }
  const serving = `${imports}
    const server = zerosend.createFileServer({ root: ${JSON.stringify(root)}, port: 0 }); const { port } = (await server.listen()) ?? server.address;
    const response = await fetch('http://127.0.0.1:' + port + '/file.bin');
    console.log(createHash('sha256').update(Buffer.from(await response.arrayBuffer())).digest('hex')); await server.close();`;
  for (const calls of ['openat2:error=ENOSYS', 'sendfile:error=EPERM'])
    t.is(without(t, calls, serving), expected, calls);
  const relaying = `${imports}
    const server = net.createServer((socket) => { zerosend.sendFile(socket, ${JSON.stringify(path)}).then(() => socket.end()); }).listen(0);
    await once(server, 'listening');
    const proxy = await zerosend.createProxy({ target: server.address().port });
    console.log(await all(net.connect(proxy.address.port))); server.close(); await proxy.close();`;
  t.is(without(t, 'splice:error=EINVAL', relaying), expected);
  const mapping = `${imports}
    const file = await zerosend.MappedFile.open(${JSON.stringify(path)});
    console.log(createHash('sha256').update(await file.read(0, 3_000_000)).digest('hex'));`;
  t.is(without(t, 'process_vm_readv:error=EPERM', mapping), expected);
});

test('probe: function and command have the same result; the command prints a table', async (t) => {
  const found = await probe();
  const json = JSON.parse((await run(process.execPath, [MAIN, 'probe', '--json'])).stdout) as Probe;
  const verdicts = (of: Probe) => of.mechanisms.map(({ name, available }) => `${name} ${available}`);
  t.deepEqual(verdicts(json), verdicts(found));
  const { stdout } = await run(process.execPath, [MAIN, 'probe']);
  t.regex(stdout, /^kernel {2}Linux \d/);
  for (const { name } of found.mechanisms) t.true(stdout.includes(name));
  t.regex(stdout, /scatter-gather/);
});

test('memoryMaps: addresses, permissions, files and resident pages', async (t) => {
  const path = patternFile(scratch(t), 'a file\nwith a line', 100_000);
  const mapped = await MappedFile.open(path, { mode: 'shared', populate: true });
  const [map, ...more] = await memoryMaps({ filter: 'a file\nwith' });
  t.deepEqual(more, []);
  t.like(map, {
    path,
    size: 102_400,
    read: true,
    write: true,
    execute: false,
    shared: true,
    offset: 0,
    deleted: false,
  });
  t.is(map?.use?.rss, 102_400);
  t.true((map?.use?.pss ?? 0) > 0);
  t.is(BigInt(map?.end ?? 0) - BigInt(map?.start ?? 0), 102_400n);
  t.is(map?.inode, Number(execFileSync('stat', ['-c', '%i', path])));
  mapped.close();
  const all = await memoryMaps();
  t.is(all.filter((one) => one.path === '[stack]').length, 1);
  t.true(
    all.some((one) => one.path === undefined),
    'anonymous memory',
  );
  t.true((await memoryMaps({ filter: /zerosend.*\.node$/ })).some((one) => one.execute));
  t.is(
    (await memoryMaps({ filter: /zerosend.*\.node$/g })).length,
    (await memoryMaps({ filter: /zerosend.*\.node$/ })).length,
  );
  t.true((await memoryMaps({ filter: (one) => one.shared })).every((one) => one.shared));
  const child = spawn('sleep', ['60']);
  t.teardown(() => child.kill());
  await once(child, 'spawn');
  t.true((await memoryMaps({ pid: child.pid, filter: 'sleep' })).length > 0);
  await t.throwsAsync(memoryMaps({ pid: 2 ** 22 + 1 }), { code: 'ENOENT' });
  await t.throwsAsync(memoryMaps({ pid: -1 }), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT' });
  await t.throwsAsync(memoryMaps({ filter: 5 as unknown as string }), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT' });
});

onDisk('pageCache: after warm all pages are resident, after evict none', async (t) => {
  const path = patternFile(scratch(t), 'file', 20_000_001);
  const pages = Math.ceil(20_000_001 / 4096);
  t.like(await pageCache.evict(path), { resident: 0, pages, runs: [{ resident: false, pages }] });
  t.like(await pageCache.residency(path), { resident: 0, pages, size: 20_000_001 });
  // Reads only the middle, without read-ahead.
  execFileSync('dd', [`if=${path}`, 'of=/dev/null', 'bs=4096', 'skip=1000', 'count=1'], { stdio: 'ignore' });
  const some = await pageCache.residency(path);
  t.true(some.resident > 0 && some.resident < pages);
  t.is(
    some.runs.reduce((sum, run) => sum + run.pages, 0),
    pages,
  );
  t.is(
    some.runs.reduce((sum, run) => sum + (run.resident ? run.pages : 0), 0),
    some.resident,
  );
  const first = some.runs[0]?.pages ?? 0;
  t.false(some.runs[0]?.resident);
  t.true(first <= 1000 && first + (some.runs[1]?.pages ?? 0) > 1000, 'the run contains the page that was read');
  const heard: number[] = [];
  const warmed = await pageCache.warm(path, { onProgress: (bytes) => heard.push(bytes) });
  t.like(warmed, { pages, resident: pages, residentBefore: some.resident });
  t.is(heard.at(-1), 20_000_001);
  t.deepEqual((await pageCache.residency(path)).runs, [{ resident: true, pages }]);
  t.is((await pageCache.warm(path)).bytesRead, 0, 'the file is already resident');
  const measured = await pageCache.measure(path);
  t.is(measured.second.residentBefore, pages);
  t.is(measured.evicted.residentBefore, 0);
  t.is(measured.evicted.bytes, 20_000_001);
  t.true(measured.direct === undefined ? measured.directRefusal !== undefined : measured.direct.bytes === 20_000_001);
  for (const pace of [measured.first, measured.second, measured.evicted]) {
    t.true(Math.abs(pace.bytes / 1e6 / pace.seconds - pace.megabytesPerSecond) < 1);
  }
  t.is((await pageCache.residency(path)).resident, pages, 'all pages are resident afterwards');
});

const overlay = spawnSync('sh', ['-c', 'test "$(id -u)" = 0 && grep -q overlay /proc/filesystems']).status === 0;
if (!overlay) console.warn('skipped: the test on overlayfs needs root and overlayfs');
(overlay ? onDisk : test.skip)('pageCache: files on overlayfs, whose pages belong to the lower file', async (t) => {
  const directory = scratch(t);
  const at = (name: string) => join(directory, name);
  for (const name of ['lower', 'upper', 'work', 'merged']) mkdirSync(at(name));
  // An overlay does not write modified pages of the lower file system to the disk.
  execFileSync('sync', [patternFile(at('lower'), 'file', 1_000_000)]);
  const options = `lowerdir=${at('lower')},upperdir=${at('upper')},workdir=${at('work')}`;
  const { status, stderr } = spawnSync('mount', ['-t', 'overlay', 'overlay', '-o', options, at('merged')]);
  // An overlay on an overlay is refused, and so are mounts in most containers.
  if (status !== 0) return t.pass(`skipped: ${stderr}`);
  t.teardown(() => spawnSync('umount', [at('merged')]));
  const path = join(at('merged'), 'file');
  t.like(await pageCache.evict(path), { resident: 0, pages: 245, by: 'mincore' });
  t.like(await pageCache.warm(path), { resident: 245, residentBefore: 0, bytesRead: 1_000_000 });
  t.like(await pageCache.residency(path), { resident: 245, runs: [{ resident: true, pages: 245 }] });
});

testWith('fincore')('pageCache: agrees with fincore', async (t) => {
  const path = patternFile(scratch(t), 'file', 5_000_000);
  for (const change of [() => pageCache.evict(path), () => pageCache.warm(path)]) {
    await change();
    const counted = Number(execFileSync('fincore', ['-n', '-b', '-o', 'PAGES', path]));
    t.is((await pageCache.residency(path)).resident, counted);
  }
});

test('pageCache: aborting, empty files, directories, and memory', async (t) => {
  const root = scratch(t);
  const path = patternFile(root, 'file', 50_000_000);
  await pageCache.evict(path);
  const stop = new AbortController();
  const warming = pageCache.measure(path, { signal: stop.signal, onProgress: () => stop.abort() });
  await t.throwsAsync(warming, { code: 'ABORT_ERR', name: 'AbortError' });
  await t.throwsAsync(pageCache.warm(path, { signal: AbortSignal.abort() }), { code: 'ABORT_ERR' });
  writeFileSync(join(root, 'empty'), '');
  t.like(await pageCache.residency(join(root, 'empty')), { pages: 0, resident: 0, runs: [] });
  t.like(await pageCache.warm(join(root, 'empty')), { pages: 0, bytesRead: 0 });
  await t.throwsAsync(pageCache.measure(join(root, 'empty')), {
    code: 'ERR_ZEROSEND_INVALID_ARGUMENT',
    message: /empty/,
  });
  await t.throwsAsync(pageCache.residency(join(root, 'none')), { code: 'ENOENT' });
  await t.throwsAsync(pageCache.warm(root), { code: 'ERR_ZEROSEND_NOT_REGULAR_FILE' });
  await t.throwsAsync(pageCache.evict('x\0'), { code: 'ERR_ZEROSEND_INVALID_ARGUMENT' });
  const status = await pageCache.status();
  const meminfo = readFileSync('/proc/meminfo', 'latin1');
  t.is(status.total, Number(/^MemTotal: +(\d+)/m.exec(meminfo)?.[1]) * 1024);
  t.true(status.cached > 0 && status.available > 0 && status.cached < status.total);
});

onDisk('zerosend cache: text with bars, directories, JSON and errors', async (t) => {
  const root = scratch(t);
  mkdirSync(join(root, 'deep/er'), { recursive: true });
  patternFile(root, 'deep/a', 4096 * 64);
  patternFile(root, 'deep/er/b', 100);
  symlinkSync('/etc/hostname', join(root, 'deep/link'));
  const cache = async (...args: string[]) => (await run(process.execPath, [MAIN, 'cache', ...args])).stdout;
  t.regex(
    await cache('evict', root),
    /^·{32} +0\.0 % of 256 KiB.*\n· +0\.0 % of 100 bytes.*\n2 files: 0\.0 % \(0 of 65 pages\)\n$/,
  );
  t.is(await cache('warm', root), '2 files, 256 KiB: 256 KiB read, 100.0 % resident\n');
  t.regex(await cache('residency', join(root, 'deep/a')), /^█{32} +100\.0 % of 256 KiB/);
  t.like(JSON.parse(await cache('residency', '--json', root))[0], { pages: 64, resident: 64, pageSize: 4096 });
  t.regex(await cache('measure', join(root, 'deep/a')), /after evicting +\d+ MB\/s +[\d.]+ s +0\.0 % was resident/);
  t.regex(await cache('status'), /^total +[\d.]+ GiB/);
  t.regex(await cache('--help'), /^usage: zerosend cache/);
  for (const [args, code, message] of [
    [[], 2, /missing command: use one of residency, evict, warm, measure, status/],
    [['wat'], 2, /unknown command 'wat'/],
    [['warm'], 2, /requires a path/],
    [['warm', join(root, 'none')], 1, /ENOENT/],
  ] as const) {
    const failed = await t.throwsAsync(cache(...args));
    t.is((failed as unknown as { code: number }).code, code);
    t.regex((failed as unknown as { stderr: string }).stderr, message);
  }
});
