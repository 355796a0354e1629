/** Every example, run as its header says, and what it prints. */
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';

import test from 'ava';

import { testWith } from './support/tools.js';

const EXAMPLES = new URL('../examples/', import.meta.url);
const run = promisify(execFile);

/** What a line is to be, from the first to the last; lines in between that are not named may be anything. */
const PROGRAMS: Record<string, RegExp[]> = {
  '1-fundamentals/traditional-io': [
    /^read \+ write, 4 KiB +: +\d+ MB\/s, +\d+ ms of processor time, 32768 calls$/,
    /^createReadStream/,
    /^sendFile .* calls, by sendfile$/,
    /^all received the same 67108864 bytes$/,
  ],
  '1-fundamentals/detect': [
    /^kernel \d.*pages of \d+ bytes/,
    /^(yes|no ) sendfile/,
    /^(yes|no ) io_uring/,
    /^lo: scatter-gather/,
  ],
  '1-fundamentals/memory-maps': [
    /^the largest 5 of \d+ mappings/,
    /^our own file, mapped: 16\.0 MiB, in memory 0\.0 MiB$/,
    /^after reading 4 MiB of it, in memory [\d.]+ MiB$/,
  ],
  '1-fundamentals/page-cache': [
    /^just written: +8192 of 8192 pages/,
    /^evicted: +\d+ of 8192 pages/,
    /^warmed up: +8192 of 8192 pages/,
    /^reading it hot \d+ MB\/s, cold \d+ MB\/s, past the page cache/,
    /^the page cache of this machine: \d+ MiB/,
  ],
  '2-sendfile/basic': [
    /^the whole file: 5000000 bytes by sendfile, \d+ calls, \d+ ms$/,
    /^a part of it: 1000 bytes from 4096 on, by read-write$/,
    /^received 5001024 bytes/,
    /^ENOENT: No such file or directory, open '\/no\/such\/file'$/,
    /^ERR_ZEROSEND_OUT_OF_RANGE: invalid offset 5000001: the file has 5000000 bytes$/,
  ],
  '2-sendfile/chunked': [
    /^progress: 25 %, 50 %, 75 %, 100 %$/,
    /^cancelled after \d+ bytes: ABORT_ERR$/,
    /^went on from there: 67108864 bytes in all, the same file$/,
    /^four slices over four connections: 67108864 bytes, the same file$/,
  ],
  '2-sendfile/non-blocking': [
    /^sendfile\(2\) took \d+ bytes in \d+ calls, then null: the socket is full$/,
    /^the receiver has read some; sendfile\(2\) takes \d+ bytes more$/,
    /^50 slow receivers: 100 MiB sent in \d+ ms, the event loop was \d+ ms late at worst$/,
  ],
  '2-sendfile/cork': [/^cork: false, noDelay: true +: +\d+ calls/, /^the default +:/, /^cork: true +: +\d+ calls/],
  '2-sendfile/heads': [
    /^head and 1000 bytes: \d calls, by read-write$/,
    /^head and 1000000 bytes: \d+ calls, by sendfile$/,
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
    /^file -> pipe -> socket: 1000000 bytes, the same$/,
    /^socket -> pipe -> file: 1000000 bytes, the same$/,
    /^file -> pipe -> file: +1000000 bytes, the same, \d+ calls$/,
    /^without a pipe: ERR_ZEROSEND_INVALID_ARGUMENT$/,
  ],
  '3-splice/echo-server': [
    /^sent 8388608 bytes and got the same back$/,
    /^while JavaScript was busy: still the same$/,
    /^2 connections, 8388616 bytes given back$/,
  ],
  '3-splice/proxy': [
    /^six requests: a b a b a b$/,
    /^b is gone, six more: a a a a a a$/,
    /^12 connections, \d+ retried, 0 unreachable$/,
  ],
  '3-splice/tee': [
    /^tee\(2\) copied 11 bytes: 'hello world' and 'hello world'$/,
    /^drop: 33554432 bytes came, the slow one missed some; each got or missed all of them$/,
    /^block: client, file and the slow one have the same 33554432 bytes$/,
  ],
  '3-splice/vmsplice': [
    /^given: 1048576 bytes by vmsplice, the buffer has 0 bytes now$/,
    /^received 1048576 bytes, the same$/,
    /^without gift: 1048576 bytes, the buffer still has 1048576 bytes, and changing it changes nothing$/,
    /^memory that is not from allocPages: ERR_ZEROSEND_INVALID_ARGUMENT$/,
  ],
  '3-splice/pipe-tuning': [
    /^pipes are of \d+ bytes/,
    /^asked for 100000, got 131072$/,
    /^ +4 KiB pipes:/,
    /^ +1024 KiB pipes:/,
  ],
  '4-mmap/basic': [
    /^read: 'the quick brown fox'$/,
    /^private: here 'THE quick', in the file 'the quick'$/,
    /^shared: here 'THE quick', in the file 'THE quick'$/,
    /^grown to 8192 bytes, the new ones are 0$/,
    /^after somebody cut it: ERR_ZEROSEND_TRUNCATED$/,
  ],
  '4-mmap/page-cache': [
    /^written through one mapping, read through another: 'shared pages'$/,
    /^evicted and mapped: +\d+ of 4096 pages/,
    /^after reading 4 KiB: +\d+ of 4096 pages/,
    /^with populate: +4096 of 4096 pages/,
  ],
  '4-mmap/send': [
    /^67108864 bytes by mmap, \d+ calls, the same$/,
    /^cut while it was sent: ERR_ZEROSEND_TRUNCATED after \d+ bytes$/,
  ],
  '4-mmap/shared-ring': [
    /^the consumer has 200000 messages, in order$/,
    /^about \d+ messages a second/,
    /^killed in the middle: ERR_ZEROSEND_PEER_DIED after 50000 messages or more$/,
  ],
  '4-mmap/file-cache': [
    /^100 requests: 10 misses, 90 hits, 10 files in 655360 bytes$/,
    /^changed on the disk: 'new contents', 1 stale$/,
    /^with room for 4 files: 4 files, 6 evictions$/,
  ],
  '4-mmap/compare-all': [
    /^method/,
    /^read-write +\d+ +\d+ +\d+$/,
    /^vmsplice +\d+ +\d+ +\d+$/,
    /^all received the same$/,
  ],
  '4-mmap/file-server': [
    /^GET \/index\.html: 200, 27 bytes$/,
    /^GET \/large\.bin: 200, 5000000 bytes$/,
    /^GET \/none: 404$/,
    /^100 requests while JavaScript slept: all answered$/,
    /^103 requests$/,
  ],
  '5-today/fastify-app': [
    /^GET \/ +200 text\/html; charset=utf-8, 27 bytes$/,
    /^GET \/static\/app\.js +200 \S+; charset=utf-8, cached for 3600 s$/i,
    /^GET \/report +200 attachment; filename="?large\.bin"?, 5000000 bytes$/,
    /^GET \/api +200 \{"hello":"world"\}$/,
    /^4 responses, seen by a hook$/,
  ],
  '5-today/express-app': [
    /^GET \/static\/large\.bin +200, 5000000 bytes$/,
    /^GET \/static\/none +404, the application's own$/,
    /^GET \/api +200, \{"hello":"world"\}$/,
  ],
  '5-today/front-door': [
    /^a file: +200 in \d+ ms$/,
    /^a route: 200 \{"hello":"world"\}$/,
    /^JavaScript blocked for 1 s: 50 files were answered meanwhile, the slowest in \d+ ms$/,
  ],
  '5-today/scale-out': [
    /^3 instances, 60 files, each asked for 5 times through HAProxy$/,
    /^instance 1 holds \d+ files, .*: 60 in all$/,
    /^instance 3 is gone: (\d+) of \1 files of the others stayed where they were$/,
  ],
};

for (const [name, lines] of Object.entries(PROGRAMS)) {
  const declare = name === '5-today/scale-out' ? testWith('haproxy') : test;
  // One after another: some of them measure.
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
    t.true(text.includes(`npx tsx examples/${name}.ts`), 'the header says how it is run');
    t.regex(text, /Look for:/);
    t.true(header.every((one) => one.trim() === '' || one.startsWith(' *')));
  });
}

test('none is missing from the tests, and each is in the index', (t) => {
  const folders = readdirSync(EXAMPLES, { withFileTypes: true }).filter((entry) => /^\d-/.test(entry.name));
  const all = folders.flatMap(({ name }) =>
    readdirSync(new URL(`${name}/`, EXAMPLES)).map((file) => `${name}/${file.replace('.ts', '')}`),
  );
  t.deepEqual(all.sort(), Object.keys(PROGRAMS).sort());
  t.is(all.length, 28);
  const index = readFileSync(new URL('README.md', EXAMPLES), 'utf8');
  for (const name of all) t.true(index.includes(`](${name}.ts)`), name);
});
