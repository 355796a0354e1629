/**
 * Lists the memory mappings of a process (program, libraries, heap, files) and how much of each is resident.
 *
 *   npx tsx examples/1-fundamentals/memory-maps.ts [--pid N]
 *
 * Look for: mapping a file adds to the size at once, but to the resident part only when pages are touched. A page shared by several
 * processes counts fully in `rss` and proportionally in `pss`.
 *
 *   the 5 largest of 236 mappings by resident size:
 *      21.6 MiB of   26.5 MiB  r-xp  /usr/bin/node
 *      11.7 MiB of   48.2 MiB  r--p  /usr/bin/node
 *       6.7 MiB of    6.7 MiB  rw-p  (anonymous)
 *       6.6 MiB of    7.4 MiB  r--p  /usr/bin/node
 *       5.1 MiB of    6.6 MiB  rw-p  (anonymous)
 *   mapped file: 16.0 MiB, resident 0.0 MiB
 *   after reading 4 MiB: resident 4.0 MiB
 */
import { MappedFile, type MemoryMap, memoryMaps } from 'zerosend';

import { MIB, makeFile, option } from '../common.js';

const mib = (bytes: number) => `${(bytes / MIB).toFixed(1)} MiB`;
const pid = option('pid', '');
const maps = await memoryMaps(pid === '' ? {} : { pid: Number(pid) });
const rss = (map: MemoryMap) => map.use?.rss ?? 0;
console.log(`the 5 largest of ${maps.length} mappings by resident size:`);
for (const map of maps.toSorted((a, b) => rss(b) - rss(a)).slice(0, 5)) {
  const rights = `${map.read ? 'r' : '-'}${map.write ? 'w' : '-'}${map.execute ? 'x' : '-'}${map.shared ? 's' : 'p'}`;
  console.log(
    `  ${mib(rss(map)).padStart(9)} of ${mib(map.size).padStart(10)}  ${rights}  ${map.path ?? '(anonymous)'}`,
  );
}

const path = makeFile(16 * MIB);
const file = await MappedFile.open(path);
const own = async () => (await memoryMaps({ filter: path }))[0] as MemoryMap;
console.log(`mapped file: ${mib((await own()).size)}, resident ${mib(rss(await own()))}`);
await file.read(0, 4 * MIB);
console.log(`after reading 4 MiB: resident ${mib(rss(await own()))}`);
file.close();
