// Generates the binary files of examples/site. They are the same on every machine, so they are not in git.
// `tsx scripts/make-site-media.ts [folder]`; files with the right contents are not written, so their mtime does not change.

import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const KIB = 1024;
const MIB = 1024 * KIB;

const FILES = [
  {
    name: 'small.bin',
    bytes: KIB,
    seed: 1,
    sha256: 'd7d4d4ab0dadcdd1d3e3e035388e7988c9857139df3f744145801eb826f0ba5d',
  },
  {
    name: 'medium.bin',
    bytes: 64 * KIB,
    seed: 2,
    sha256: 'c6c0e549b220f64ec8b57cf781e4faa297f20191a107dd2fe915b7932395d42e',
  },
  {
    name: 'sample.bin',
    bytes: 4 * MIB,
    seed: 3,
    sha256: '76bed4a5a318c6049c526ab48c972c5fbda465775bd2ba5822df11f024b07dc2',
  },
  {
    name: 'large.bin',
    bytes: 16 * MIB,
    seed: 4,
    sha256: '521a0c8f77f8e711050aa927601d277e95e5457bc66429df633057637ca5ba84',
  },
] as const;

export interface MediaFile {
  name: string;
  path: string;
  bytes: number;
  sha256: string;
  /** False when the file already had the right contents. */
  written: boolean;
}

/** Generates the media files that are missing from `dir` or have other contents. */
export async function makeSiteMedia(dir = defaultDir()): Promise<MediaFile[]> {
  await mkdir(dir, { recursive: true });
  const made: MediaFile[] = [];
  for (const { name, bytes, seed, sha256 } of FILES) {
    const path = join(dir, name);
    const right = await hasHash(path, sha256);
    if (!right) {
      const content = randomBytes(bytes, seed);
      if (hash(content) !== sha256)
        throw new Error(`${name}: generated ${hash(content)}, expected ${sha256}; the generator has changed`);
      await replace(path, content);
    }
    made.push({ name, path, bytes, sha256, written: !right });
  }
  made.push(await writeSum(dir, 'sample.bin'));
  return made;
}

/** In the format of `sha256sum -c`. */
async function writeSum(dir: string, of: string): Promise<MediaFile> {
  const file = FILES.find(({ name }) => name === of);
  if (file === undefined) throw new Error(`unknown media file '${of}'`);
  const content = Buffer.from(`${file.sha256}  ${of}\n`);
  const sha256 = hash(content);
  const path = join(dir, 'sample.sha256');
  const right = await hasHash(path, sha256);
  if (!right) await replace(path, content);
  return { name: 'sample.sha256', path, bytes: content.length, sha256, written: !right };
}

/** mulberry32, one 32-bit word at a time, little endian. */
function randomBytes(bytes: number, seed: number): Buffer {
  const out = Buffer.allocUnsafe(bytes);
  let state = seed;
  for (let at = 0; at < bytes; at += 4) {
    state = (state + 0x6d2b79f5) | 0;
    let word = Math.imul(state ^ (state >>> 15), state | 1);
    word = (word + Math.imul(word ^ (word >>> 7), word | 61)) ^ word;
    out.writeInt32LE(word ^ (word >>> 14), at);
  }
  return out;
}

/** Replaces it with rename(2), so that a server never reads a partial file. */
async function replace(path: string, content: Buffer): Promise<void> {
  const unfinished = `${path}.${process.pid}.tmp`;
  await writeFile(unfinished, content);
  await rename(unfinished, path);
}

async function hasHash(path: string, sha256: string): Promise<boolean> {
  try {
    return hash(await readFile(path)) === sha256;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

function hash(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}

function defaultDir(): string {
  return fileURLToPath(new URL('../examples/site/media', import.meta.url));
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  for (const { name, bytes, written } of await makeSiteMedia(process.argv[2])) {
    console.log(`${written ? 'wrote' : 'kept '} ${name} (${bytes} bytes)`);
  }
}
