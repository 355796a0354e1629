/** Files for tests: scratch directories, distinguishable content, open descriptors. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

/** A directory that is removed after the test. */
export function scratch(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'zerosend-test-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Waits until existing files are old enough to be cached. */
export function settle(ms = 70): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** `length` bytes in which every 4-byte word is its position, so that all ranges differ. */
export function pattern(length: number, seed = 0): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let at = 0; at < words.length; at++) words[at] = Math.imul(at + seed + 1, 2654435761);
  return Buffer.from(words.buffer).subarray(0, length);
}

/** Writes a file with {@link pattern} and returns its path. */
export function patternFile(directory: string, name: string, length: number, seed = 0): string {
  const path = join(directory, name);
  writeFileSync(path, pattern(length, seed));
  return path;
}

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** The open descriptors of this process, without those of the runtime. */
export function openDescriptors(): string[] {
  return readdirSync('/proc/self/fd')
    .map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return '';
      }
    })
    .filter(
      (link) => link !== '' && !link.startsWith('anon_inode:') && !link.startsWith('/proc/') && link !== '/dev/null',
    );
}

/** Waits until `condition` holds. Throws after `ms`. */
export async function until(condition: () => boolean, ms = 5000, name = 'the condition'): Promise<void> {
  const end = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`${name} was not met within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Waits until this process has no more open descriptors than `before`. */
export async function settled(t: ExecutionContext, before: string[]): Promise<void> {
  try {
    await until(() => openDescriptors().length <= before.length, 5000);
  } catch {
    t.deepEqual(openDescriptors(), before, 'descriptors were left open');
  }
  t.pass();
}
