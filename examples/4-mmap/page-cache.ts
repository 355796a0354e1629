/**
 * A mapping is the page cache: two of one file are the same memory, nothing is loaded before it is touched, and `populate` loads all at
 * once.
 *
 *   npx tsx examples/4-mmap/page-cache.ts
 *
 * Look for: the change of one mapping in the other without a `flush`; how little is in memory after reading 4 KiB of a file that was
 * evicted (the kernel reads ahead, so more than that); all of it after `populate`.
 *
 *   written through one mapping, read through another: 'shared pages'
 *   evicted and mapped:      0 of 4096 pages in memory
 *   after reading 4 KiB:     1 of 4096 pages in memory
 *   with populate:        4096 of 4096 pages in memory
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
const say = (what: string, file: MappedFile) => {
  const { resident, pages } = file.residency();
  console.log(`${what.padEnd(20)} ${String(resident).padStart(5)} of ${pages} pages in memory`);
};
say('evicted and mapped:', lazy);
await lazy.read(MIB, 4096);
say('after reading 4 KiB:', lazy);
lazy.close();
const eager = await MappedFile.open(path, { populate: true });
say('with populate:', eager);
eager.close();
