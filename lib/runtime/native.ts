/**
 * Loads the native binding.
 *
 * Importing the package must succeed on every platform, so an error is stored, and thrown by the first function that needs the
 * binding.
 */
import { createRequire } from 'node:module';

import type { Binding } from '../types/binding.js';
import { failure } from '../util/errors.js';
import { VERSION } from '../util/package.js';
import { binaryPath, describeLoadError, describePlatform } from './binary.js';
import { elfProblem } from './elf.js';

let binding: Binding | undefined;
let loadError: unknown;

if (process.platform === 'linux') {
  try {
    binding = load(binaryPath());
  } catch (error) {
    loadError = error;
  }
}

/** Loads a binary. Its version must be that of the JavaScript, because their interface is not versioned. */
function load(file: string): Binding {
  // require() would run a file with another extension as JavaScript.
  if (!file.endsWith('.node')) throw new Error('the file name must end in .node');
  const problem = elfProblem(file, process.arch);
  if (problem !== undefined) throw new Error(problem);
  const loaded = createRequire(import.meta.url)(file) as Partial<Binding>;
  const version = loaded.packageVersion?.();
  if (version !== VERSION) {
    throw new Error(`binary version ${version ?? 'unknown'} does not match package version ${VERSION}`);
  }
  return loaded as Binding;
}

/** The native binding. Throws `ERR_ZEROSEND_UNSUPPORTED` if it could not be loaded. */
export function requireNative(): Binding {
  if (binding !== undefined) return binding;
  if (process.platform !== 'linux') {
    throw failure('ERR_ZEROSEND_UNSUPPORTED', `this function requires Linux, not ${describePlatform()}`);
  }
  throw failure('ERR_ZEROSEND_UNSUPPORTED', describeLoadError(loadError), { cause: loadError });
}
