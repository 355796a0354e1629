/** Long-running native work that reports progress and can be aborted. */
import type { NativeEvent } from '../types/binding.js';
import { aborted, invalid } from '../util/errors.js';
import { ask, engine } from './engine.js';

export interface AbortableTaskOptions {
  signal?: AbortSignal | undefined;
  onProgress?: ((bytes: number) => void) | undefined;
}

/**
 * Runs the task that `start` starts for a request, and resolves with its event. `start` returns a token; releasing the token
 * stops the task. Rejects with `ABORT_ERR` when `signal` is aborted.
 */
export async function runAbortableTask(
  { signal, onProgress }: AbortableTaskOptions,
  start: (number: number) => number,
): Promise<NativeEvent> {
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw invalid('onProgress', onProgress, 'a function');
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalid('signal', signal, 'an AbortSignal');
  if (signal?.aborted) throw aborted(signal);
  let token: number | undefined;
  const stop = () => {
    if (token !== undefined) engine().release(token);
  };
  signal?.addEventListener('abort', stop, { once: true });
  try {
    return await ask(
      (number) => {
        token = start(number);
      },
      (bytes) => onProgress?.(bytes),
    );
  } catch (error) {
    throw signal?.aborted ? aborted(signal) : error;
  } finally {
    signal?.removeEventListener('abort', stop);
    stop();
  }
}
