/**
 * A server whose files stay ready to be sent: small ones as blocks of memory, larger ones mapped, the least recently used make room. Each
 * is compared with the disk when it is asked for, so that a change is seen at once.
 *
 *   npx tsx examples/4-mmap/file-cache.ts
 *
 * Look for: misses the first time, hits afterwards; the new contents after the file has changed; evictions when there are more files
 * than fit.
 *
 *   100 requests: 10 misses, 90 hits, 10 files in 655360 bytes
 *   changed on the disk: 'new contents', 1 stale
 *   with room for 4 files: 4 files, 6 evictions
 */
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { FileCache, sendFile } from 'zerosend';

import { connection, makeFile, scratch } from '../common.js';

const directory = scratch();
const paths = Array.from({ length: 10 }, (_, number) => makeFile(65_536, directory, `${number}`));
// The clock of a file system is coarse: a file that has just changed is served, and kept only when it is a little older.
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
console.log(`changed on the disk: '${await changed.read()}', ${cache.stats().stale} stale`);
cache.close();
socket.end();
await received;

const small = new FileCache({ maxFiles: 4 });
await settled();
for (const path of paths) await small.get(path);
console.log(`with room for 4 files: ${small.stats().files} files, ${small.stats().evictions} evictions`);
small.close();
