/**
 * A file as memory: read anywhere, write, and who sees what is written. `'private'` copies a page when it is written to, `'shared'` is
 * the file itself.
 *
 *   npx tsx examples/4-mmap/basic.ts
 *
 * Look for: a private change reaches nobody, a shared one everybody at once, the disk after `flush`; a file that was cut is an error
 * here, where a program in C gets SIGBUS.
 *
 *   read: 'the quick brown fox'
 *   private: here 'THE quick', in the file 'the quick'
 *   shared: here 'THE quick', in the file 'THE quick'
 *   grown to 8192 bytes, the new ones are 0
 *   after somebody cut it: ERR_ZEROSEND_TRUNCATED
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
  console.log(`${mode}: here '${await start(file)}', in the file '${onDisk()}'`);
  await file.flush();
  file.close();
}
const grown = await MappedFile.open(path, { mode: 'shared', length: 8192 });
const zeros = (await grown.read(100, 8092)).every((byte) => byte === 0);
console.log(`grown to ${grown.size} bytes, the new ones are ${zeros ? '0' : 'something else'}`);
truncateSync(path, 100);
await grown.read(0, 8192).catch((error: NodeJS.ErrnoException) => console.log(`after somebody cut it: ${error.code}`));
grown.close();
