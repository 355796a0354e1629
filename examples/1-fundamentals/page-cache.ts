/**
 * The page cache: residency of a file, eviction, prefetching, and the cost of a cold read. A benchmark that does not check residency
 * measures memory instead of the disk.
 *
 *   npx tsx examples/1-fundamentals/page-cache.ts [--file PATH]
 *
 * Look for: the resident pages before each read, and their effect on its speed. Files on tmpfs cannot be evicted.
 *
 *   just written:  8192 of 8192 pages resident
 *   evicted:          0 of 8192 pages resident
 *   warmed:        8192 of 8192 pages resident, 33554432 bytes read
 *   read: hot 5014 MB/s, cold 1495 MB/s, O_DIRECT 1330 MB/s
 *   page cache of this machine: 1819 MiB, 159 MiB of memory dirty
 */
import { pageCache } from 'zerosend';

import { MIB, makeFile, option } from '../common.js';

const given = option('file', '');
const path = given === '' ? makeFile(32 * MIB) : given;
const printResidency = async (label: string, suffix = '') => {
  const { resident, pages } = await pageCache.residency(path);
  console.log(`${label.padEnd(13)} ${String(resident).padStart(5)} of ${pages} pages resident${suffix}`);
};
await printResidency(given === '' ? 'just written:' : 'at the start:');
await pageCache.evict(path);
await printResidency('evicted:');
const { bytesRead } = await pageCache.warm(path);
await printResidency('warmed:', `, ${bytesRead} bytes read`);

const { second, evicted, direct, directRefusal } = await pageCache.measure(path);
const speed = (pace = second) => `${pace.megabytesPerSecond.toFixed(0)} MB/s`;
const uncached = direct === undefined ? `not supported (${directRefusal})` : speed(direct);
console.log(`read: hot ${speed()}, cold ${speed(evicted)}, O_DIRECT ${uncached}`);
const { cached, dirty } = await pageCache.status();
console.log(
  `page cache of this machine: ${(cached / MIB).toFixed(0)} MiB, ${(dirty / MIB).toFixed(0)} MiB of memory dirty`,
);
