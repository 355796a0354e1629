/**
 * Maps a file into memory, reads and writes it. A write to a `'private'` mapping copies the page (copy-on-write); a write to a
 * `'shared'` mapping changes the file.
 *
 *   npx tsx examples/4-mmap/basic.ts
 *
 * Look for: a private write is visible only in its mapping; a shared write is visible at once to every reader of the file, and on disk
 * after `flush`. Reading past a truncation is an error here, and SIGBUS in a C program.
 *
 *   read: 'the quick brown fox'
 *   private: mapping 'THE quick', file 'the quick'
 *   shared: mapping 'THE quick', file 'THE quick'
 *   extended to 8192 bytes, the new bytes are 0
 *   after truncation: ERR_ZEROSEND_TRUNCATED
 */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { MappedFile } from 'zerosend';

import { scratch } from '../common.js';

const path = join(scratch(), 'file');
writeFileSync(path, 'the quick brown fox');
const start = async (file: MappedFile) => (await file.read(0, 9)).toString();
const onDisk = () => readFileSync(path, 'latin1').slice(0, 9);

const reading = await MappedFile.open(path);
console.log(`read: '${await reading.read()}'`);
reading.close();
for (const mode of ['private', 'shared'] as const) {
  const file = await MappedFile.open(path, { mode });
  await file.write(0, Buffer.from('THE'));
  console.log(`${mode}: mapping '${await start(file)}', file '${onDisk()}'`);
  await file.flush();
  file.close();
}
const extended = await MappedFile.open(path, { mode: 'shared', length: 8192 });
const zeros = (await extended.read(100, 8092)).every((byte) => byte === 0);
console.log(`extended to ${extended.size} bytes, the new bytes are ${zeros ? '0' : 'not 0'}`);
truncateSync(path, 100);
await extended.read(0, 8192).catch((error: NodeJS.ErrnoException) => console.log(`after truncation: ${error.code}`));
extended.close();
