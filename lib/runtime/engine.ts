/** The engine of this JavaScript environment: requests to native code, and the dispatch of its events. */
import { AsyncResource } from 'node:async_hooks';
import { createRequire } from 'node:module';

import type * as Streams from '../streams/engine.js';
import type { Binding, NativeEvent, StaticEngine } from '../types/binding.js';
import { requireNative } from './native.js';
import { IS_LINUX } from './platform.js';

type Listener = (event: NativeEvent) => void;

const listeners = new Map<number, Listener>();
/** Requests that do not keep the event loop alive. */
const unreferenced = new Set<number>();
let lastRequest = 0;
let lastPending = 0;
let native: Binding | undefined;
let streams: StaticEngine | undefined;

// libuv does not know of the work of native threads: this timer keeps the event loop alive while a request is open.
const keepAliveTimer = setInterval(() => {}, 2 ** 30).unref();

/** The native engine of this thread, opened at its first use. */
export function engine(): Binding {
  return native ?? openNative();
}

/** The engine for static serving: the native one, or the one in TypeScript on other platforms than Linux. */
export function staticEngine(): StaticEngine {
  return native ?? streams ?? (IS_LINUX ? openNative() : openStreams());
}

function openNative(): Binding {
  const binding = requireNative();
  binding.openEngine(dispatchAll);
  native = binding;
  return binding;
}

function openStreams(): StaticEngine {
  // Loaded only where it is needed, and synchronously, so that invalid options throw at once.
  const { StreamEngine } = createRequire(import.meta.url)('../streams/engine.js') as typeof Streams;
  const opened = new StreamEngine((event) => dispatch(event, opened));
  streams = opened;
  return opened;
}

/** Opens a request and returns its number. `listener` is called with its events until the last one. */
export function openRequest(listener: Listener): number {
  lastRequest += 1;
  // Events are dispatched in batches: AsyncLocalStorage must return the store of the caller.
  listeners.set(lastRequest, AsyncResource.bind(listener));
  updateKeepAlive();
  return lastRequest;
}

/** Closes a request: its listener is not called again. */
export function closeRequest(number: number): void {
  listeners.delete(number);
  unreferenced.delete(number);
  updateKeepAlive();
}

/** Whether an open request keeps the event loop alive. Default: it does. */
export function keepAlive(number: number, keep: boolean): void {
  if (keep) unreferenced.delete(number);
  else if (listeners.has(number)) unreferenced.add(number);
  updateKeepAlive();
}

function updateKeepAlive(): void {
  if (listeners.size > unreferenced.size) keepAliveTimer.ref();
  else keepAliveTimer.unref();
}

function dispatchAll(): void {
  for (const event of engine().takeEvents()) dispatch(event, engine());
}

function dispatch(event: NativeEvent, from: Pick<Binding, 'release'>): void {
  const listener = listeners.get(event.request);
  if (event.progress === undefined) closeRequest(event.request);
  if (listener === undefined) {
    // The request was closed: nothing uses what was opened for it.
    if (event.handle !== undefined) from.release(event.handle);
    return;
  }
  try {
    listener(event);
  } catch (error) {
    // An exception of a listener must not prevent the dispatch of the other events.
    queueMicrotask(() => {
      throw error;
    });
  }
}

/**
 * Makes a request and resolves with its last event. `start` is called with the number of the request; what it throws rejects.
 * `onProgress` is called for the events before the last one.
 */
export function request(
  start: (number: number) => void,
  onProgress?: (progress: number) => void,
): Promise<NativeEvent> {
  return new Promise((resolve, reject) => {
    const number = openRequest((event) => {
      if (event.progress !== undefined) onProgress?.(event.progress);
      else if (event.error === undefined) resolve(event);
      else reject(event.error);
    });
    try {
      start(number);
    } catch (error) {
      closeRequest(number);
      reject(error);
    }
  });
}

/** As {@link request}, for a request whose result is a value of type `T`. */
export async function requestValue<T>(
  start: (number: number) => void,
  onProgress?: (progress: number) => void,
): Promise<T> {
  return (await request(start, onProgress)).value as T;
}

/** As {@link request}, for a request whose result is a handle. */
export async function requestHandle(start: (number: number) => void): Promise<number> {
  return (await request(start)).handle as number;
}

/** A request for a handle that can be cancelled. */
export interface PendingHandle {
  /** Rejects with `ABORT_ERR` when it was cancelled. */
  handle: Promise<number>;
  /** Cancels the request; what is opened nevertheless is released. Does nothing afterwards. */
  cancel(): void;
}

/** Makes a request for a handle: see {@link request}. */
export function openHandle(start: (number: number) => void): PendingHandle {
  let request = 0;
  let cancelled = false;
  const handle = requestHandle((number) => {
    request = number;
    start(number);
  }).then((opened) => {
    if (cancelled) engine().release(opened);
    return opened;
  });
  // The caller may await it later: until then its rejection is not unhandled.
  handle.catch(() => {});
  return {
    handle,
    cancel: () => {
      cancelled = true;
      engine().cancel(request);
    },
  };
}

/**
 * A new number for the response of `StaticEngine.respond`, below 0. It stands for the handle of the response's transfer until
 * {@link keepPending} is called for it.
 */
export function nextPending(): number {
  lastPending -= 1;
  return lastPending;
}

/**
 * The handle of a transfer: `transfer` itself, or that of the pending response with this number. Must be called before
 * anything else can call `respond`.
 */
export function keepPending(transfer: number): number {
  return transfer < 0 ? staticEngine().keepPending(transfer) : transfer;
}
