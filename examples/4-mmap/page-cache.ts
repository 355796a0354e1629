/**
 * A file mapping refers to the page cache: two shared mappings of a file use the same pages, a page is loaded on first access, and
 * `populate` loads all pages at once.
 *
 *   npx tsx examples/4-mmap/page-cache.ts
 *
 * Look for: a write through one mapping is visible in the other without `flush`; few pages are resident after reading 4 KiB of an
 * evicted file (readahead is disabled by `advise('random')`); all are resident after `populate`.
 *
 *   written through one mapping, read through another: 'shared pages'
 *   evicted and mapped:      0 of 4096 pages resident
 *   after reading 4 KiB:     1 of 4096 pages resident
 *   with populate:        4096 of 4096 pages resident
 */
import { MappedFile, pageCache } from 'zerosend';

import { MIB, makeFile } from '../common.js';

const path = makeFile(16 * MIB);
const [one, two] = [await MappedFile.open(path, { mode: 'shared' }), await MappedFile.open(path)];
await one.write(8 * MIB, Buffer.from('shared pages'));
console.log(`written through one mapping, read through another: '${await two.read(8 * MIB, 12)}'`);
one.close();
two.close();

await pageCache.evict(path);
const lazy = await MappedFile.open(path);
lazy.advise('random');
const printResidency = (label: string, file: MappedFile) => {
  const { resident, pages } = file.residency();
  console.log(`${label.padEnd(20)} ${String(resident).padStart(5)} of ${pages} pages resident`);
};
printResidency('evicted and mapped:', lazy);
await lazy.read(MIB, 4096);
printResidency('after reading 4 KiB:', lazy);
lazy.close();
const eager = await MappedFile.open(path, { populate: true });
printResidency('with populate:', eager);
eager.close();
