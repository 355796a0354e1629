/** Shared by buffers and rings: names, descriptors, and passing them to another process. */
import { Socket } from 'node:net';

import { aborted, invalid } from '../util/errors.js';
import { checkInteger, isDescriptor } from '../util/options.js';
import { within } from './bounds.js';
import { engine, requestHandle } from './engine.js';
import { SessionEndpoint } from './session-endpoint.js';

/** Shared memory: its name, or a descriptor. */
export type SegmentSource = string | number;

/** Checks a name in `/dev/shm`, with or without the slash at its beginning; see shm_overview(7). */
export function checkName(name: unknown): asserts name is string {
  const bare = typeof name === 'string' ? name.replace(/^\//, '') : '';
  if (bare === '' || /[/\0]/.test(bare) || bare === '.' || bare === '..' || Buffer.byteLength(bare) > 250) {
    throw invalid('name', name, "1 to 250 bytes without '/' and NUL");
  }
}

export function checkMode(mode: number): void {
  checkInteger('mode', mode, 0, 0o777);
}

/** The source in the form of the binding. */
export function segmentSource(source: SegmentSource): { name: string } | { fd: number } {
  if (isDescriptor(source)) return { fd: source };
  if (typeof source === 'number') throw invalid('source', source, 'a name or a descriptor');
  checkName(source);
  return { name: source };
}

/** Removes a name; false when it does not exist. */
export function unlinkSegment(name: string): boolean {
  checkName(name);
  return engine().unlinkSegment(name);
}

/** Sends a duplicate of the descriptor over a Unix socket, after all bytes written to the socket. */
export async function sendSegment(segment: number, socket: Socket): Promise<void> {
  const endpoint = new SessionEndpoint('target', socket, false, true).suspend();
  try {
    await endpoint.ready();
    engine().sendSegment(segment, endpoint.handle);
  } finally {
    endpoint.release();
  }
}

/** Waits for a descriptor from a Unix socket that was not read from. Resolves with its handle. */
export async function receiveSegment(socket: Socket, signal: AbortSignal | undefined): Promise<number> {
  if (!(socket instanceof Socket)) throw invalid('socket', socket, 'a net.Socket');
  if (signal?.aborted) throw aborted(signal);
  const endpoint = new SessionEndpoint('source', socket, true, false).suspend();
  try {
    await within(endpoint.ready(), { signal, reason: '' }, () => {});
    if (socket.readableLength > 0) {
      throw invalid('socket', socket, 'a socket that was not read from: pause it before it connects');
    }
    let waiting = 0;
    const answer = requestHandle((number) => {
      waiting = engine().receiveSegment(number, endpoint.handle);
    });
    const cancel = () => engine().release(waiting);
    signal?.addEventListener('abort', cancel, { once: true });
    // It may have been aborted before the request existed.
    if (signal?.aborted) cancel();
    endpoint.onClosed(cancel);
    try {
      return await answer;
    } catch (error) {
      if (signal?.aborted) throw aborted(signal);
      throw endpoint.closed ? endpoint.closedError() : error;
    } finally {
      signal?.removeEventListener('abort', cancel);
      cancel();
    }
  } finally {
    endpoint.release();
  }
}
