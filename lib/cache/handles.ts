/** Handles of caches and cached files: not properties, so that they are not part of the API. */
import { NativeHandle } from '../runtime/handle.js';

const handles = new WeakMap<object, NativeHandle>();

/** Stores the handle of an object. It is released when the object is garbage collected. */
export function register(object: object, id: number): void {
  handles.set(object, new NativeHandle(id, 'the cache'));
}

/** The number of an object in the engine. Throws `ERR_ZEROSEND_CLOSED` after {@link release}. */
export function idOf(object: object): number {
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
