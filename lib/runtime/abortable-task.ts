/** Long-running native work that reports progress and can be aborted. */
import { aborted, invalid } from '../util/errors.js';
import { engine, requestValue } from './engine.js';

export interface AbortableTaskOptions {
  signal?: AbortSignal | undefined;
  onProgress?: ((bytes: number) => void) | undefined;
}

/**
 * Runs the task that `start` starts for a request, and resolves with its value. `start` returns a handle; releasing it stops
 * the task. Rejects with `ABORT_ERR` when `signal` is aborted.
 */
export async function runAbortableTask<T>(
  { signal, onProgress }: AbortableTaskOptions,
  start: (number: number) => number,
): Promise<T> {
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw invalid('onProgress', onProgress, 'a function');
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalid('signal', signal, 'an AbortSignal');
  if (signal?.aborted) throw aborted(signal);
  let task: number | undefined;
  const stop = () => {
    if (task !== undefined) engine().release(task);
  };
  signal?.addEventListener('abort', stop, { once: true });
  try {
    return await requestValue<T>(
      (number) => {
        task = start(number);
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
