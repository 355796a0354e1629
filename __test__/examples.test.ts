/** Runs every example with the command of its header comment and checks its output. */
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';

import test from 'ava';

import { testWith } from './support/tools.js';

const EXAMPLES = new URL('../examples/', import.meta.url);
const run = promisify(execFile);

/** Expected lines in order; other lines may come between them. */
const PROGRAMS: Record<string, RegExp[]> = {
  '1-fundamentals/traditional-io': [
    /^read \+ write, 4 KiB +: +\d+ MB\/s, +\d+ ms of CPU time, 32768 calls$/,
    /^createReadStream/,
    /^sendFile .* calls, by sendfile$/,
    /^all receivers got identical 67108864 bytes$/,
  ],
  '1-fundamentals/detect': [
    /^kernel \d.*pages of \d+ bytes/,
    /^(yes|no ) sendfile/,
    /^(yes|no ) io_uring/,
    /^lo: scatter-gather/,
  ],
  '1-fundamentals/memory-maps': [
    /^the 5 largest of \d+ mappings/,
    /^mapped file: 16\.0 MiB, resident 0\.0 MiB$/,
    /^after reading 4 MiB: resident [\d.]+ MiB$/,
  ],
  '1-fundamentals/page-cache': [
    /^just written: +8192 of 8192 pages resident/,
    /^evicted: +\d+ of 8192 pages resident/,
    /^warmed: +8192 of 8192 pages resident/,
    /^read: hot \d+ MB\/s, cold \d+ MB\/s, O_DIRECT/,
    /^page cache of this machine: \d+ MiB/,
  ],
  '2-sendfile/basic': [
    /^the whole file: 5000000 bytes by sendfile, \d+ calls, \d+ ms$/,
    /^a part: 1000 bytes from offset 4096, by read-write$/,
    /^received 5001024 bytes/,
    /^ENOENT: No such file or directory, open '\/no\/such\/file'$/,
    /^ERR_ZEROSEND_OUT_OF_RANGE: invalid offset 5000001: the file has 5000000 bytes$/,
  ],
  '2-sendfile/chunked': [
    /^progress: 25 %, 50 %, 75 %, 100 %$/,
    /^cancelled after \d+ bytes: ABORT_ERR$/,
    /^resumed: 67108864 bytes in total, identical$/,
    /^four slices over four connections: 67108864 bytes, identical$/,
  ],
  '2-sendfile/non-blocking': [
    /^sendfile\(2\) sent \d+ bytes in \d+ calls, then returned null: the socket is full$/,
    /^after the receiver has read 1 MiB, sendfile\(2\) sends \d+ bytes more$/,
    /^50 slow receivers: 100 MiB sent in \d+ ms, maximum event loop delay \d+ ms$/,
  ],
  '2-sendfile/cork': [/^cork: false, noDelay: true +: +\d+ calls/, /^the default +:/, /^cork: true +: +\d+ calls/],
  '2-sendfile/heads': [
    /^header and 1000 bytes: \d calls, by read-write$/,
    /^header and 1000000 bytes: \d+ calls, by sendfile$/,
    /^three parts of two files with boundaries: 101\d+ bytes/,
  ],
  '2-sendfile/http-server': [
    /^GET \/file\.bin +200 5000000 bytes, application\/octet-stream$/,
    /^GET \/file\.bin, a range +206 100 bytes, bytes 1000-1099\/5000000$/,
    /^GET \/file\.bin, again +304 0 bytes$/,
    /^GET \/\.\.\/etc\/passwd +40[34] /,
  ],
  '2-sendfile/compare': [/^ +1 KiB: read-write 1\.00, sendfile [\d.]+ times/, /^ +64 KiB:/, /^ +4096 KiB:/],
  '3-splice/basic': [
    /^file -> pipe -> socket: 1000000 bytes, identical$/,
    /^socket -> pipe -> file: 1000000 bytes, identical$/,
    /^file -> pipe -> file: +1000000 bytes, identical, \d+ calls$/,
    /^without a pipe: ERR_ZEROSEND_INVALID_ARGUMENT$/,
  ],
  '3-splice/echo-server': [
    /^sent 8388608 bytes, received identical bytes$/,
    /^while JavaScript was blocked: identical$/,
    /^2 connections, 8388616 bytes echoed$/,
  ],
  '3-splice/proxy': [
    /^six requests: a b a b a b$/,
    /^after b has stopped: a a a a a a$/,
    /^12 connections, \d+ retried, 0 unreachable$/,
  ],
  '3-splice/tee': [
    /^tee\(2\) duplicated 11 bytes: 'hello world' and 'hello world'$/,
    /^drop: 33554432 bytes, slow sink missed some; every byte was delivered or counted as dropped$/,
    /^block: client, file and slow sink received identical 33554432 bytes$/,
  ],
  '3-splice/vmsplice': [
    /^with gift: 1048576 bytes by vmsplice, the buffer has 0 bytes afterwards$/,
    /^received 1048576 bytes, identical$/,
    /^without gift: 1048576 bytes, the buffer still has 1048576 bytes, later writes change nothing$/,
    /^memory not allocated by allocPages: ERR_ZEROSEND_INVALID_ARGUMENT$/,
  ],
  '3-splice/pipe-tuning': [
    /^default pipe size \d+ bytes/,
    /^requested 100000, got 131072$/,
    /^ +4 KiB pipes:/,
    /^ +1024 KiB pipes:/,
  ],
  '4-mmap/basic': [
    /^read: 'the quick brown fox'$/,
    /^private: mapping 'THE quick', file 'the quick'$/,
    /^shared: mapping 'THE quick', file 'THE quick'$/,
    /^extended to 8192 bytes, the new bytes are 0$/,
    /^after truncation: ERR_ZEROSEND_TRUNCATED$/,
  ],
  '4-mmap/page-cache': [
    /^written through one mapping, read through another: 'shared pages'$/,
    /^evicted and mapped: +\d+ of 4096 pages/,
    /^after reading 4 KiB: +\d+ of 4096 pages/,
    /^with populate: +4096 of 4096 pages/,
  ],
  '4-mmap/send': [
    /^67108864 bytes by mmap, \d+ calls, identical$/,
    /^truncated during the transfer: ERR_ZEROSEND_TRUNCATED after \d+ bytes$/,
  ],
  '4-mmap/shared-ring': [
    /^received 200000 messages in order$/,
    /^about \d+ messages per second/,
    /^producer killed: ERR_ZEROSEND_PEER_DIED after at least 50000 messages$/,
  ],
  '4-mmap/file-cache': [
    /^100 requests: 10 misses, 90 hits, 10 files in 655360 bytes$/,
    /^after the file changed: 'new contents', 1 stale$/,
    /^maxFiles 4: 4 files, 6 evictions$/,
  ],
  '4-mmap/compare-all': [
    /^method/,
    /^read-write +\d+ +\d+ +\d+$/,
    /^vmsplice +\d+ +\d+ +\d+$/,
    /^all receivers got identical bytes$/,
  ],
  '4-mmap/file-server': [
    /^GET \/index\.html: 200, 27 bytes$/,
    /^GET \/large\.bin: 200, 5000000 bytes$/,
    /^GET \/none: 404$/,
    /^100 requests while JavaScript was blocked: all answered$/,
    /^103 requests$/,
  ],
  '5-today/fastify-app': [
    /^GET \/ +200 text\/html; charset=utf-8, 27 bytes$/,
    /^GET \/static\/app\.js +200 \S+; charset=utf-8, cached for 3600 s$/i,
    /^GET \/report +200 attachment; filename="?large\.bin"?, 5000000 bytes$/,
    /^GET \/api +200 \{"hello":"world"\}$/,
    /^onResponse hook: 4 responses$/,
  ],
  '5-today/express-app': [
    /^GET \/static\/large\.bin +200, 5000000 bytes$/,
    /^GET \/static\/none +404, the application's 404 page$/,
    /^GET \/api +200, \{"hello":"world"\}$/,
  ],
  '5-today/front-door': [
    /^a file: +200 in \d+ ms$/,
    /^a route: 200 \{"hello":"world"\}$/,
    /^JavaScript blocked for 1 s: 50 files were served in that time, the slowest in \d+ ms$/,
  ],
  '5-today/scale-out': [
    /^3 instances, 60 files, each requested 5 times through HAProxy$/,
    /^instance 1 caches \d+ files, .*: 60 in total$/,
    /^after instance 3 has stopped: (\d+) of \1 files of the others kept their instance$/,
  ],
};

for (const [name, lines] of Object.entries(PROGRAMS)) {
  const declare = name === '5-today/scale-out' ? testWith('haproxy') : test;
  // Serially, because some examples measure time.
  const serially = declare === test ? test.serial : declare;
  serially(name, async (t) => {
    const path = new URL(`${name}.ts`, EXAMPLES).pathname;
    const { stdout } = await run(process.execPath, ['--import', 'tsx', path], { timeout: 60_000 });
    let rest = stdout.split('\n');
    for (const line of lines) {
      const at = rest.findIndex((one) => line.test(one));
      t.true(at >= 0, `${line} is not in:\n${stdout}`);
      rest = rest.slice(at + 1);
    }
    const [first = '', ...header] = readFileSync(path, 'utf8').split('*/')[0]?.split('\n') ?? [];
    t.is(first, '/**');
    const text = header.join('\n');
    t.true(text.includes(`npx tsx examples/${name}.ts`), 'the header has the command line');
    t.regex(text, /Look for:/);
    t.true(header.every((one) => one.trim() === '' || one.startsWith(' *')));
  });
}

test('every example is tested and listed in the README', (t) => {
  const folders = readdirSync(EXAMPLES, { withFileTypes: true }).filter((entry) => /^\d-/.test(entry.name));
  const all = folders.flatMap(({ name }) =>
    readdirSync(new URL(`${name}/`, EXAMPLES)).map((file) => `${name}/${file.replace('.ts', '')}`),
  );
  t.deepEqual(all.sort(), Object.keys(PROGRAMS).sort());
  t.is(all.length, 28);
  const index = readFileSync(new URL('README.md', EXAMPLES), 'utf8');
  for (const name of all) t.true(index.includes(`](${name}.ts)`), name);
});
