/** Ownership of objects in the engine. */
import { failure } from '../util/errors.js';
import { engine } from './engine.js';

const unreachable = new FinalizationRegistry<number>((id) => engine().release(id));

/** A handle of an object in the engine, which is released by `close`, or when the handle is garbage collected. */
export class NativeHandle {
  readonly #id: number;
  readonly #name: string;
  #isClosed = false;

  /** @param name what the error after `close` calls it, for example `the ring`. */
  constructor(id: number, name: string) {
    this.#id = id;
    this.#name = name;
    unreachable.register(this, id, this);
  }

  /** The number of the object in the engine. Throws `ERR_ZEROSEND_CLOSED` after `close`. */
  get id(): number {
    if (this.#isClosed) throw failure('ERR_ZEROSEND_CLOSED', `${this.#name} is closed`);
    return this.#id;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Releases the object. Repeated calls do nothing. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    unreachable.unregister(this);
    engine().release(this.#id);
  }
}
