/**
 * Content that encodes its position: records of 16 bytes with a stream number, a version, the index of the record and a constant. So
 * received bytes show their file, version and offset.
 */

export const RECORD = 16;
const MAGIC = 0x7a65726f;

/** `length` bytes of version `version` of stream `id`, from byte `offset` on. */
export function make(id: number, version: number, length: number, offset = 0): Buffer {
  const first = Math.floor(offset / RECORD);
  const count = Math.ceil((offset + length) / RECORD) - first;
  const words = new Uint32Array(count * 4);
  for (let at = 0; at < count; at++) {
    words[at * 4] = id;
    words[at * 4 + 1] = version;
    words[at * 4 + 2] = first + at;
    words[at * 4 + 3] = (MAGIC ^ id ^ (first + at)) >>> 0;
  }
  const skipped = offset - first * RECORD;
  return Buffer.from(words.buffer, skipped, length);
}

export interface Verified {
  /** The lowest and the highest version; undefined without a complete record. */
  min: number | undefined;
  max: number | undefined;
  /** The first byte that is wrong for every version: its offset in the stream, and the bytes there. */
  bad: { offset: number; got: string } | undefined;
}

/** Checks that `bytes` are those of stream `id` from `offset` on. */
export function verify(bytes: Buffer, id: number, offset = 0): Verified {
  const result: Verified = { min: undefined, max: undefined, bad: undefined };
  const lead = Math.min((RECORD - (offset % RECORD)) % RECORD, bytes.length);
  const whole = Math.floor((bytes.length - lead) / RECORD);
  const tail = lead + whole * RECORD;
  // Copied, because typed arrays must be aligned.
  const copy = new Uint8Array(whole * RECORD);
  copy.set(bytes.subarray(lead, tail));
  const words = new Uint32Array(copy.buffer);
  const first = Math.ceil(offset / RECORD);
  const fail = (at: number) => {
    result.bad ??= { offset: offset + at, got: bytes.subarray(at, at + 32).toString('hex') };
  };
  if (!samePart(bytes.subarray(0, lead), id, offset)) fail(0);
  for (let at = 0; at < whole; at++) {
    const index = first + at;
    if (words[at * 4] !== id || words[at * 4 + 2] !== index || words[at * 4 + 3] !== (MAGIC ^ id ^ index) >>> 0) {
      fail(lead + at * RECORD);
      break;
    }
    const version = words[at * 4 + 1] as number;
    if (result.min === undefined || version < result.min) result.min = version;
    if (result.max === undefined || version > result.max) result.max = version;
  }
  if (!samePart(bytes.subarray(tail), id, offset + tail)) fail(tail);
  return result;
}

/** Compares a part of a record, without the version. */
function samePart(bytes: Buffer, id: number, offset: number): boolean {
  const expected = make(id, 0, bytes.length, offset);
  for (let at = 0; at < bytes.length; at++) {
    const inRecord = (offset + at) % RECORD;
    if (inRecord >= 4 && inRecord < 8) continue;
    if (bytes[at] !== expected[at]) return false;
  }
  return true;
}
