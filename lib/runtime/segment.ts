/** What shared buffers and rings have in common: names, descriptors, and the way to another process. */
import { Socket } from 'node:net';

import { aborted, invalid } from '../util/errors.js';
import { checkInteger, isDescriptor } from '../util/options.js';
import { within } from './bounds.js';
import { engine, requestHandle } from './engine.js';
import { SessionEndpoint } from './session-endpoint.js';

/** Which shared memory: its name, or a descriptor of it. */
export type SegmentSource = string | number;

/** A name in `/dev/shm`, with or without its slash; see shm_overview(7). */
export function checkName(name: unknown): asserts name is string {
  const bare = typeof name === 'string' ? name.replace(/^\//, '') : '';
  if (bare === '' || /[/\0]/.test(bare) || bare === '.' || bare === '..' || Buffer.byteLength(bare) > 250) {
    throw invalid('name', name, "1 to 250 bytes without '/' and NUL");
  }
}

export function checkMode(mode: number): void {
  checkInteger('mode', mode, 0, 0o777);
}

/** How the binding is told of shared memory. */
export function nameSource(source: SegmentSource): { name: string } | { fd: number } {
  if (isDescriptor(source)) return { fd: source };
  if (typeof source === 'number') throw invalid('source', source, 'a name or a descriptor');
  checkName(source);
  return { name: source };
}

/** Removes the name; false when there is none. */
export function unlink(name: string): boolean {
  checkName(name);
  return engine().unlinkSegment(name);
}

/** Sends a duplicate of the descriptor over a Unix socket, after all that was written to it. */
export async function send(token: number, socket: Socket): Promise<void> {
  const end = new SessionEndpoint('target', socket, false, true).suspend();
  try {
    await end.ready();
    engine().sendSegment(token, end.token);
  } finally {
    end.release();
  }
}

/** Waits for a descriptor that comes over a Unix socket which nobody reads; its token. */
export async function receive(socket: Socket, signal: AbortSignal | undefined): Promise<number> {
  if (!(socket instanceof Socket)) throw invalid('socket', socket, 'a net.Socket');
  if (signal?.aborted) throw aborted(signal);
  const end = new SessionEndpoint('source', socket, true, false).suspend();
  try {
    await within(end.ready(), { signal, reason: '' }, () => {});
    if (socket.readableLength > 0) {
      throw invalid('socket', socket, 'one that nobody has read from: pause it before it is connected');
    }
    let waiting = 0;
    const answer = requestHandle((number) => {
      waiting = engine().receiveSegment(number, end.token);
    });
    const cancel = () => engine().release(waiting);
    signal?.addEventListener('abort', cancel, { once: true });
    // It may have been aborted before there was anything to cancel.
    if (signal?.aborted) cancel();
    end.onClosed(cancel);
    try {
      return await answer;
    } catch (error) {
      if (signal?.aborted) throw aborted(signal);
      throw end.closed ? end.closedError() : error;
    } finally {
      signal?.removeEventListener('abort', cancel);
      cancel();
    }
  } finally {
    end.release();
  }
}
