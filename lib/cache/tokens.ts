/** Handles of caches and cached files, which other modules need and users do not see. */
import { NativeHandle } from '../runtime/handle.js';

const handles = new WeakMap<object, NativeHandle>();

/** Stores the handle of an object. It is released when the object is garbage collected. */
export function register(object: object, handle: number): void {
  handles.set(object, new NativeHandle(handle, 'the cache'));
}

/** The number of the handle of an object. Throws `ERR_ZEROSEND_CLOSED` after {@link release}. */
export function tokenOf(object: object): number {
  return handleOf(object).id;
}

/** Whether {@link release} was called. */
export function isReleased(object: object): boolean {
  return handleOf(object).isClosed;
}

/** Releases the object in the engine. */
export function release(object: object): void {
  handleOf(object).close();
}

function handleOf(object: object): NativeHandle {
  return handles.get(object) as NativeHandle;
}
