/** Which method responses took, counted. */
import type { FileCache, FileCacheStatistics } from '../cache/file-cache.js';
import type { FrontDoorStatistics } from '../server/statistics.js';
import type { ResponseMethod } from '../types/method.js';

/** What one method has carried. */
export interface MethodStatistics {
  /** Responses, those that were cut off included. */
  responses: number;
  /** Bytes of their bodies as announced. */
  bytes: number;
}

/** Counts since the plugin was registered or the handler made. */
export interface StaticStatistics {
  /** Responses with a file behind them: 200, 206 and 304. */
  responses: number;
  /** Bytes of their bodies as announced. */
  bytes: number;
  /** Of these responses, how many were cut off: the client went away, or the file got shorter. */
  aborted: number;
  /** By method; a method that nothing took is absent. */
  methods: Partial<Record<ResponseMethod, MethodStatistics>>;
  /** What the cache has counted, for all who use it; `null` without one, and elsewhere than on Linux. */
  cache: FileCacheStatistics | null;
}

/** What `app.zerosend.stats()` gives. */
export interface ZerosendStatistics extends StaticStatistics {
  /** What the front door of the application has counted, whose responses are not in the other counts; `null` without one. */
  frontDoor: FrontDoorStatistics | null;
}

export class Statistics {
  /** Reads the front door's. */
  frontDoor: (() => FrontDoorStatistics) | undefined;
  #aborted = 0;
  #cache: FileCache | undefined;
  readonly #methods: Partial<Record<ResponseMethod, MethodStatistics>> = {};

  constructor(cache?: FileCache) {
    this.#cache = cache;
  }

  /** Tells of this cache, unless of another already: the first registration's. */
  watch(cache: FileCache | undefined): void {
    this.#cache ??= cache;
  }

  count(method: ResponseMethod, bytes: number, aborted: boolean): void {
    this.#methods[method] ??= { responses: 0, bytes: 0 };
    const counts = this.#methods[method];
    counts.responses += 1;
    counts.bytes += bytes;
    if (aborted) this.#aborted += 1;
  }

  /** The counts now, as a copy. */
  read(): StaticStatistics {
    const sum: StaticStatistics = {
      responses: 0,
      bytes: 0,
      aborted: this.#aborted,
      methods: {},
      cache: this.#cache?.stats() ?? null,
    };
    for (const [method, counts] of Object.entries(this.#methods) as [ResponseMethod, MethodStatistics][]) {
      sum.responses += counts.responses;
      sum.bytes += counts.bytes;
      sum.methods[method] = { ...counts };
    }
    return sum;
  }

  /** The counts now, with those of the front door. */
  readAll(): ZerosendStatistics {
    return { ...this.read(), frontDoor: this.frontDoor?.() ?? null };
  }
}
