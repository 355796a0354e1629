/**
 * The page cache: how much of a file is in it, taking the file out, warming it up, and what a cold read costs. A benchmark that does
 * not look measures memory and calls it a disk.
 *
 *   npx tsx examples/1-fundamentals/page-cache.ts [--file PATH]
 *
 * Look for: the pages that are resident before each reading, and the difference that makes. On tmpfs nothing can be evicted.
 *
 *   just written:  8192 of 8192 pages in memory
 *   evicted:          0 of 8192 pages in memory
 *   warmed up:     8192 of 8192 pages in memory, 33554432 bytes read
 *   reading it hot 5014 MB/s, cold 1495 MB/s, past the page cache 1330 MB/s
 *   the page cache of this machine: 1819 MiB, 159 MiB of memory to be written to disks
 */
import { pageCache } from 'zerosend';

import { MIB, makeFile, option } from '../common.js';

const given = option('file', '');
const path = given === '' ? makeFile(32 * MIB) : given;
const say = async (what: string, more = '') => {
  const { resident, pages } = await pageCache.residency(path);
  console.log(`${what.padEnd(13)} ${String(resident).padStart(5)} of ${pages} pages in memory${more}`);
};
await say(given === '' ? 'just written:' : 'as it is:');
await pageCache.evict(path);
await say('evicted:');
const { bytesRead } = await pageCache.warm(path);
await say('warmed up:', `, ${bytesRead} bytes read`);

const { second, evicted, direct, directRefusal } = await pageCache.measure(path);
const speed = (pace = second) => `${pace.megabytesPerSecond.toFixed(0)} MB/s`;
const past = direct === undefined ? `refused (${directRefusal})` : speed(direct);
console.log(`reading it hot ${speed()}, cold ${speed(evicted)}, past the page cache ${past}`);
const { cached, dirty } = await pageCache.status();
console.log(
  `the page cache of this machine: ${(cached / MIB).toFixed(0)} MiB, ${(dirty / MIB).toFixed(0)} MiB of memory to be written to disks`,
);
