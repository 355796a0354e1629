/**
 * Strong entity tags: a hash of a file's bytes, worked out once for each version of it. The counterpart of
 * `crates/core/src/fs/content_tag.rs`; the comparison test holds the two together.
 *
 * The hash is SHA-256, which Node has, where Linux has BLAKE3: a tag is good for the server that gave it.
 */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';

import { isSettled, type OpenFile, statOf } from './open-file.js';

/** Tags kept at most; beyond it all are forgotten at once. */
const MOST = 65_536;
const READ_SIZE = 256 * 1024;

export class ContentTags {
  readonly #known = new Map<string, string>();
  /** The same version is never read twice at once. */
  readonly #reading = new Map<string, Promise<string | undefined>>();

  /** The tag of a file; `undefined` while it is being written, when no promise about its bytes can be made. */
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
    if (this.#known.size >= MOST) this.#known.clear();
    this.#known.set(meta.version, tag);
    return tag;
  }
}

/** 128 bits of it, in hexadecimal and quotes. */
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
