/**
 * Loads the binding, or remembers why it could not be loaded.
 *
 * The package must import everywhere, so a failure is thrown only when something needs the kernel.
 */
import { createRequire } from 'node:module';

import type { Binding } from '../types/binding.js';
import { failure } from '../util/errors.js';
import { VERSION } from '../util/package.js';
import { binaryPath, explainFailure, platformInWords } from './binary.js';
import { elfFault } from './elf.js';

let binding: Binding | undefined;
let reason: unknown;

if (process.platform === 'linux') {
  try {
    binding = load(binaryPath());
  } catch (error) {
    reason = error;
  }
}

/** Loads a binary, which must be of the same version as the JavaScript: nothing else keeps the two together. */
function load(file: string): Binding {
  // Anything else would be run as JavaScript.
  if (!file.endsWith('.node')) throw new Error('the name of a binary ends in .node');
  const fault = elfFault(file, process.arch);
  if (fault !== undefined) throw new Error(fault);
  const loaded = createRequire(import.meta.url)(file) as Partial<Binding>;
  const version = loaded.packageVersion?.();
  if (version !== VERSION) throw new Error(`it is of zerosend ${version ?? 'before 0.1.0, or of something else'}`);
  return loaded as Binding;
}

/** The binding; throws `ERR_ZEROSEND_UNSUPPORTED` where there is none. */
export function requireNative(): Binding {
  if (binding !== undefined) return binding;
  if (process.platform !== 'linux') {
    throw failure('ERR_ZEROSEND_UNSUPPORTED', `zerosend needs Linux for this, and this is ${platformInWords()}`);
  }
  throw failure('ERR_ZEROSEND_UNSUPPORTED', explainFailure(reason), { cause: reason });
}
