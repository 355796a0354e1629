/**
 * A large transfer with progress reports, cancelled and resumed at the same byte, and a file split into slices over several concurrent
 * connections. `chunkSize` limits the bytes sent per turn (nginx's `sendfile_max_chunk`): without a limit one fast receiver could occupy
 * a thread.
 *
 *   npx tsx examples/2-sendfile/chunked.ts
 *
 * Look for: `error.bytes`, the offset to resume from; and that the slices together make up the file.
 *
 *   progress: 25 %, 50 %, 75 %, 100 %
 *   cancelled after 4176896 bytes: ABORT_ERR
 *   resumed: 67108864 bytes in total, identical
 *   four slices over four connections: 67108864 bytes, identical
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

// The peer does not read, so the transfer stalls until it is cancelled. `error.bytes` is the number of bytes sent; a second connection
// receives the rest.
const copy = join(scratch(), 'copy');
await writeFile(copy, '');
const file = await open(copy, 'r+');
const first = await connection(false);
const error = await sendFile(first.socket, path, { signal: AbortSignal.timeout(200) }).catch(
  (error: NodeJS.ErrnoException & { bytes: number }) => error,
);
if (!('code' in error)) throw new Error('the transfer was not cancelled');
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
  `resumed: ${error.bytes + bytes} bytes in total, ${sha256(copy) === sha256(path) ? 'identical' : 'different'}`,
);

// Slices: ranges of one open file, sent concurrently.
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
  `four slices over four connections: ${total} bytes, ${total === BYTES && inOrder ? 'identical' : 'different'}`,
);
