/**
 * A file cache: small files are kept as memory blocks, larger ones mapped, and the least recently used are evicted. Every lookup checks
 * the file on disk, so a change takes effect at once.
 *
 *   npx tsx examples/4-mmap/file-cache.ts
 *
 * Look for: misses on the first request, hits afterwards; the new contents after the file has changed; evictions when there are more
 * files than `maxFiles`.
 *
 *   100 requests: 10 misses, 90 hits, 10 files in 655360 bytes
 *   after the file changed: 'new contents', 1 stale
 *   maxFiles 4: 4 files, 6 evictions
 */
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { FileCache, sendFile } from 'zerosend';

import { connection, makeFile, scratch } from '../common.js';

const directory = scratch();
const paths = Array.from({ length: 10 }, (_, number) => makeFile(65_536, directory, `${number}`));
// File timestamps are coarse, so the cache does not keep a file that has changed in the last few milliseconds.
const settled = () => sleep(100);
await settled();

const cache = new FileCache({ maxFiles: 100 });
const { socket, received } = await connection();
for (let at = 0; at < 100; at++) await sendFile(socket, await cache.get(paths[at % 10] as string));
const { misses, hits, files, bytes } = cache.stats();
console.log(`100 requests: ${misses} misses, ${hits} hits, ${files} files in ${bytes} bytes`);

const [first = ''] = paths;
writeFileSync(first, 'new contents');
const changed = await cache.get(first);
console.log(`after the file changed: '${await changed.read()}', ${cache.stats().stale} stale`);
cache.close();
socket.end();
await received;

const small = new FileCache({ maxFiles: 4 });
await settled();
for (const path of paths) await small.get(path);
console.log(`maxFiles 4: ${small.stats().files} files, ${small.stats().evictions} evictions`);
small.close();
