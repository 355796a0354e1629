/**
 * A large file in turns: with its progress, cancelled in the middle, gone on with from there, and cut into slices over several
 * connections at once. `chunkSize` is what one turn sends before others have theirs (nginx's `sendfile_max_chunk`): without a
 * bound one fast receiver would keep a thread for itself.
 *
 *   npx tsx examples/2-sendfile/chunked.ts
 *
 * Look for: `error.bytes`, where to go on; and that the slices together are the file.
 *
 *   progress: 25 %, 50 %, 75 %, 100 %
 *   cancelled after 4176896 bytes: ABORT_ERR
 *   went on from there: 67108864 bytes in all, the same file
 *   four slices over four connections: 67108864 bytes, the same file
 */
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { receiveFile, sendFile, sliceRanges } from 'zerosend';

import { connection, MIB, makeFile, scratch, sha256 } from '../common.js';

const BYTES = 64 * MIB;
const path = makeFile(BYTES);

const { socket, received } = await connection();
const quarters: string[] = [];
await sendFile(socket, path, {
  chunkSize: 4 * MIB,
  onProgress: (bytes) => {
    while (bytes >= ((quarters.length + 1) * BYTES) / 4) quarters.push(`${(quarters.length + 1) * 25} %`);
  },
});
socket.end();
await received;
console.log(`progress: ${quarters.join(', ')}`);

// Nobody reads, so it stops in the middle, and is cancelled there: what had gone is said, and the rest goes over another connection.
const copy = join(scratch(), 'copy');
await writeFile(copy, '');
const file = await open(copy, 'r+');
const first = await connection(false);
const error = await sendFile(first.socket, path, { signal: AbortSignal.timeout(200) }).catch(
  (error: NodeJS.ErrnoException & { bytes: number }) => error,
);
if (!('code' in error)) throw new Error('it was not cancelled');
first.socket.end();
await receiveFile(first.peer, file);
console.log(`cancelled after ${error.bytes} bytes: ${error.code}`);
const second = await connection(false);
const rest = receiveFile(second.peer, file);
const { bytes } = await sendFile(second.socket, path, { offset: error.bytes });
second.socket.end();
await rest;
await file.close();
console.log(
  `went on from there: ${error.bytes + bytes} bytes in all, ${sha256(copy) === sha256(path) ? 'the same file' : 'something else'}`,
);

// Slices: ranges of one open file, at once.
const source = await open(path);
const parts = join(scratch(), 'parts');
await writeFile(parts, '');
const sums = await Promise.all(
  sliceRanges(BYTES, 4).map(async ({ offset, length }) => {
    const lane = await connection();
    const result = await sendFile(lane.socket, source, { offset, length });
    lane.socket.end();
    return { offset, sent: result.bytes, ...(await lane.received) };
  }),
);
await source.close();
const total = sums.reduce((sum, slice) => sum + slice.bytes, 0);
const inOrder = sums.every(
  ({ offset, bytes }, at) => offset === sums.slice(0, at).reduce((sum, one) => sum + one.bytes, 0) && bytes > 0,
);
console.log(
  `four slices over four connections: ${total} bytes, ${total === BYTES && inOrder ? 'the same file' : 'something else'}`,
);
