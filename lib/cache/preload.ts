/** Preloading of a `FileCache`: files, and directories with everything below them. */
import { readdir } from 'node:fs/promises';
import path from 'node:path';

import { aborted, invalid } from '../util/errors.js';
import { resolveFile } from '../util/path.js';

export interface PreloadOptions {
  /** Number of files loaded in parallel, 1 to 64. Default 4. */
  concurrency?: number | undefined;
  /** Stops after the files that are being loaded, and rejects with `ABORT_ERR`. Files that were loaded stay in the cache. */
  signal?: AbortSignal | undefined;
  /** Called after each file. `total` grows while directories are being read. */
  onProgress?: ((progress: { loaded: number; failed: number; total: number }) => void) | undefined;
}

export interface PreloadResult {
  /** Number of files that are cached now, including those that were cached before. */
  loaded: number;
  /** The first 100 files that could not be loaded, with the errors. */
  failed: { path: string; error: Error }[];
}

const MAX_FAILURES = 100;

/** Calls `load` for each file, and for each file below each directory. */
export async function preload(
  files: string | URL | Iterable<string | URL>,
  load: (path: string) => Promise<unknown>,
  { concurrency = 4, signal, onProgress }: PreloadOptions,
): Promise<PreloadResult> {
  if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > 64) {
    throw invalid('concurrency', concurrency, 'an integer from 1 to 64');
  }
  const given = typeof files === 'string' || files instanceof URL ? [files] : [...files];
  const pending = given.map(resolveFile);
  const result: PreloadResult = { loaded: 0, failed: [] };
  let failed = 0;
  let total = pending.length;
  let active = 0;
  if (signal?.aborted) throw aborted(signal);
  const fail = (file: string, error: unknown) => {
    failed += 1;
    if (result.failed.length < MAX_FAILURES) result.failed.push({ path: file, error: error as Error });
  };
  const loadOne = async (file: string) => {
    try {
      await load(file);
      result.loaded += 1;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ERR_ZEROSEND_NOT_REGULAR_FILE') {
        fail(file, error);
      } else {
        total -= 1;
        try {
          // Not opendir(): Node leaves its descriptor open if a worker thread is terminated meanwhile.
          for (const entry of await readdir(file, { withFileTypes: true })) {
            if (!entry.isFile() && !entry.isDirectory()) continue;
            pending.push(path.join(file, entry.name));
            total += 1;
          }
        } catch (inner) {
          total += 1;
          fail(file, (inner as NodeJS.ErrnoException).code === 'ENOTDIR' ? error : inner);
        }
      }
    }
    onProgress?.({ loaded: result.loaded, failed, total });
  };
  await new Promise<void>((resolve, reject) => {
    const next = () => {
      if (signal?.aborted) {
        if (active === 0) reject(aborted(signal));
        return;
      }
      if (active === 0 && pending.length === 0) resolve();
      while (active < concurrency && pending.length > 0) {
        active += 1;
        loadOne(pending.pop() as string).then(() => {
          active -= 1;
          next();
        }, reject);
      }
    };
    next();
  });
  return result;
}
