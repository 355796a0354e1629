/**
 * Strong entity tags: a hash of the content, computed once for each version of a file. The counterpart of
 * `crates/core/src/fs/content_tag.rs`; a test compares the two.
 *
 * Uses SHA-256 of Node instead of BLAKE3: the tags differ from those on Linux.
 */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';

import { isSettled, type OpenFile, statOf } from './open-file.js';

/** Maximum number of stored tags; all are removed when it is reached. */
const MAX_TAGS = 65_536;
const READ_SIZE = 256 * 1024;

export class ContentTags {
  readonly #known = new Map<string, string>();
  /** Reads in progress, so that concurrent requests hash a version once. */
  readonly #reading = new Map<string, Promise<string | undefined>>();

  /** The tag of a file; `undefined` if the file is being written. */
  async of(file: OpenFile): Promise<string | undefined> {
    const { version } = file.meta;
    const known = this.#known.get(version);
    if (known !== undefined) return known;
    let reading = this.#reading.get(version);
    if (reading === undefined) {
      reading = this.#read(file).finally(() => this.#reading.delete(version));
      this.#reading.set(version, reading);
    }
    return await reading;
  }

  async #read({ handle, meta }: OpenFile): Promise<string | undefined> {
    if (!isSettled(meta)) return undefined;
    const tag = await hash(handle);
    if ((await statOf(handle)).version !== meta.version) return undefined;
    if (this.#known.size >= MAX_TAGS) this.#known.clear();
    this.#known.set(meta.version, tag);
    return tag;
  }
}

/** The first 128 bits of the hash, hexadecimal, in quotes. */
async function hash(handle: FileHandle): Promise<string> {
  const hasher = createHash('sha256');
  const buffer = Buffer.allocUnsafe(READ_SIZE);
  for (let offset = 0; ; ) {
    const { bytesRead } = await handle.read(buffer, 0, READ_SIZE, offset);
    if (bytesRead === 0) return `"${hasher.digest('hex').slice(0, 32)}"`;
    hasher.update(buffer.subarray(0, bytesRead));
    offset += bytesRead;
  }
}
