/** The engine of this JavaScript environment: who asked for what, and who is told. */
import { AsyncResource } from 'node:async_hooks';
import { createRequire } from 'node:module';

import type * as Portable from '../streams/engine.js';
import type { Binding, NativeEvent, StaticEngine } from '../types/binding.js';
import { requireNative } from './native.js';
import { IS_LINUX } from './platform.js';

type Listener = (event: NativeEvent) => void;

const listeners = new Map<number, Listener>();
/** Requests that do not keep the event loop. */
const unreferenced = new Set<number>();
let lastRequest = 0;
let opened: Binding | undefined;
let portable: StaticEngine | undefined;

// Nothing in the kernel that we wait for is known to the event loop: this timer holds it while a request is open.
const hold = setInterval(() => {}, 2 ** 30).unref();

/** The engine of this thread, opened at its first use. */
export function engine(): Binding {
  return opened ?? open();
}

/** The engine of static serving: that of this thread, or the one in TypeScript where there is no native part. */
export function staticEngine(): StaticEngine {
  return opened ?? portable ?? (IS_LINUX ? open() : openPortable());
}

function open(): Binding {
  const binding = requireNative();
  binding.openEngine(deliver);
  opened = binding;
  return binding;
}

function openPortable(): StaticEngine {
  // Only here, so that nobody on Linux waits for it to be loaded. At once, for wrong options are to be thrown.
  const { PortableEngine } = createRequire(import.meta.url)('../streams/engine.js') as typeof Portable;
  const made = new PortableEngine((event) => tell(event, made));
  portable = made;
  return made;
}

/** Makes a request number under which `listener` hears of events until one of them is the last. */
export function request(listener: Listener): number {
  lastRequest += 1;
  // Events come in batches, in the context of none of those that asked: AsyncLocalStorage must see the caller's.
  listeners.set(lastRequest, AsyncResource.bind(listener));
  holdLoop();
  return lastRequest;
}

/** Forgets a request that was refused when it was made. */
export function forget(number: number): void {
  listeners.delete(number);
  unreferenced.delete(number);
  holdLoop();
}

/** Whether an open request keeps the event loop alive, as it does unless told otherwise. */
export function keepAlive(number: number, keep: boolean): void {
  if (keep) unreferenced.delete(number);
  else if (listeners.has(number)) unreferenced.add(number);
  holdLoop();
}

function holdLoop(): void {
  if (listeners.size > unreferenced.size) hold.ref();
  else hold.unref();
}

function deliver(): void {
  for (const event of engine().takeEvents()) tell(event, engine());
}

function tell(event: NativeEvent, from: Pick<Binding, 'release'>): void {
  const listener = listeners.get(event.request);
  if (event.progress === undefined) forget(event.request);
  if (listener === undefined) {
    // Nobody waits any more for what was opened.
    if (event.token !== undefined) from.release(event.token);
    return;
  }
  try {
    listener(event);
  } catch (error) {
    // A listener's bug must not keep the others from their events.
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** A request whose answer is a token, and that can be given up. */
export interface Opening {
  /** Rejects with `ABORT_ERR` when it was given up. */
  token: Promise<number>;
  /** Gives it up: what is opened later is closed. Afterwards it does nothing. */
  giveUp(): void;
}

/** Asks for something that has a token: see {@link ask}. */
export function openToken(start: (number: number) => void): Opening {
  let asked = 0;
  let given = false;
  const token = ask((number) => {
    asked = number;
    start(number);
  }).then((event) => {
    const opened = event.token as number;
    if (given) engine().release(opened);
    return opened;
  });
  // Its failure is reported when its turn comes.
  token.catch(() => {});
  return {
    token,
    giveUp: () => {
      given = true;
      engine().cancel(asked);
    },
  };
}

/** Asks once: `start` is given the request's number, the answer settles the promise. `progress` hears of what comes before. */
export function ask(start: (number: number) => void, progress?: (value: number) => void): Promise<NativeEvent> {
  return new Promise((resolve, reject) => {
    const number = request((event) => {
      if (event.progress !== undefined) progress?.(event.progress);
      else if (event.error === undefined) resolve(event);
      else reject(event.error);
    });
    try {
      start(number);
    } catch (error) {
      forget(number);
      reject(error);
    }
  });
}
