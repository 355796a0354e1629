/** Bytes that contain the id of their stream and their offset, to identify them in the files of mirrors. */
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { scratch } from './files.js';

const RECORD = 16;

/** `length` bytes of the stream `id` from the offset `from` on, in records of 16 bytes: id and offset. */
export function streamBytes(id: number, length: number, from = 0): Buffer {
  const first = Math.floor(from / RECORD);
  const last = Math.ceil((from + length) / RECORD);
  let text = '';
  for (let at = first; at < last; at++) {
    text += `${String(id).padStart(5, '0')}:${(at * RECORD).toString(16).padStart(9, '0')}\n`;
  }
  return Buffer.from(text.slice(from - first * RECORD, from - first * RECORD + length), 'latin1');
}

/** The stream id in the first bytes of a stream. */
export function streamId(bytes: Buffer): number {
  return Number(bytes.toString('latin1', 0, 5));
}

/** The parts of a stream that `bytes` consist of, in order, as offsets. Throws for a byte that is not of the stream. */
export function streamParts(bytes: Buffer, id: number): Array<[number, number]> {
  const parts: Array<[number, number]> = [];
  let at = 0;
  while (at < bytes.length) {
    const record = bytes.subarray(at, at + 3 * RECORD).toString('latin1');
    const found = new RegExp(`${String(id).padStart(5, '0')}:([0-9a-f]{9})\n`).exec(record);
    if (found === null) throw new Error(`no record of stream ${id} at ${at}: ${JSON.stringify(record)}`);
    const from = Number.parseInt(found[1] as string, 16) - found.index;
    const expected = streamBytes(id, bytes.length - at, from);
    let same = 0;
    while (at + same < bytes.length && bytes[at + same] === expected[same]) same++;
    if (same === 0) throw new Error(`bytes at ${at} differ from stream ${id} at ${from}`);
    parts.push([from, from + same]);
    at += same;
  }
  return parts;
}

/** Bytes that are identifiable individually: the upper half is the stream (1 to 15), the lower half depends on the offset. */
export function mixable(id: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = id * 2654435761;
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = (id << 4) | (state >>> 28);
  }
  return bytes;
}

/** The mixed streams by id. */
export function unmix(bytes: Buffer): Map<number, Buffer> {
  const streams = new Map<number, number[]>();
  for (const byte of bytes) {
    const id = byte >>> 4;
    const stream = streams.get(id) ?? [];
    if (stream.length === 0) streams.set(id, stream);
    stream.push(byte);
  }
  return new Map([...streams].map(([id, stream]) => [id, Buffer.from(stream)]));
}

const mounts = process.getuid?.() === 0 && mountTmpfs('/proc/self/cwd', true);
if (!mounts) console.warn('skipped: tests with a small file system need to mount a tmpfs');

/** `test` with a small file system, or `test.skip` if none can be mounted. */
export const small: typeof test.skip = mounts ? test : test.skip;

/** Mounts a tmpfs with these options, for example `size=512k`. It is unmounted after the test. */
export function smallDirectory(t: ExecutionContext, options: string): string {
  const path = join(scratch(t), 'small');
  mkdirSync(path);
  if (!mountTmpfs(path, false, options)) throw new Error('cannot mount a tmpfs');
  t.teardown(() => void spawnSync('umount', ['-l', path]));
  return path;
}

function mountTmpfs(path: string, fake: boolean, options = 'size=64k'): boolean {
  return spawnSync('mount', [...(fake ? ['-f'] : []), '-t', 'tmpfs', '-o', options, 'tmpfs', path]).status === 0;
}
