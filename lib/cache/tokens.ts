/** Handles of caches and cached files in the engine. */
import { engine } from '../runtime/engine.js';

const tokens = new WeakMap<object, number>();
const unreachable = new FinalizationRegistry<number>((token) => engine().release(token));

/** Stores the handle of an object and releases it when the object is garbage collected. */
export function register(object: object, token: number): void {
  tokens.set(object, token);
  unreachable.register(object, token, object);
}

/** The handle of an object. */
export function tokenOf(object: object): number {
  return tokens.get(object) as number;
}

/** Releases the handle of an object now. */
export function release(object: object): void {
  unreachable.unregister(object);
  engine().release(tokenOf(object));
}
