/** Files that logs and mirrors write to: their names, and opening them. */
import { invalid } from '../util/errors.js';
import { engine } from './engine.js';

/** Checks the name of a file. */
export function checkName(name: string, file: unknown): void {
  if (typeof file !== 'string' || file === '' || file.includes('\0')) throw invalid(name, file, 'a path');
}

/**
 * Opens several, and gives their handles in order; `undefined` where there is none to be opened. When one fails, none stays
 * open.
 */
export async function openAll(opening: ReadonlyArray<Promise<number | undefined>>): Promise<Array<number | undefined>> {
  const opened = await Promise.allSettled(opening);
  const failed = opened.find((one) => one.status === 'rejected');
  if (failed === undefined) return Promise.all(opening);
  for (const one of opened) {
    if (one.status === 'fulfilled' && one.value !== undefined) engine().release(one.value);
  }
  throw failed.reason;
}
