/** Counters of responses by the method that sent them. */
import type { FileCache, FileCacheStatistics } from '../cache/file-cache.js';
import type { FrontDoorStatistics } from '../server/statistics.js';
import type { ResponseMethod } from '../types/method.js';

/** Counters of one method. */
export interface MethodStatistics {
  /** Number of responses, including aborted ones. */
  responses: number;
  /** Total length of their bodies in bytes. */
  bytes: number;
}

/** Counters since the plugin was registered or the handler was created. */
export interface StaticStatistics {
  /** Number of responses with a file: 200, 206 and 304. */
  responses: number;
  /** Total length of their bodies in bytes. */
  bytes: number;
  /** Number of responses that were aborted: the client closed the connection, or the file was truncated. */
  aborted: number;
  /** Counters by method; without methods that were not used. */
  methods: Partial<Record<ResponseMethod, MethodStatistics>>;
  /** The counters of the cache, including other users of the same cache; `null` without a cache and on other platforms than Linux. */
  cache: FileCacheStatistics | null;
}

/** The result of `app.zerosend.stats()`. */
export interface ZerosendStatistics extends StaticStatistics {
  /** The counters of the front door, whose responses are not included in the other counters; `null` without a front door. */
  frontDoor: FrontDoorStatistics | null;
}

export class Statistics {
  /** Reads the counters of the front door. */
  frontDoor: (() => FrontDoorStatistics) | undefined;
  #aborted = 0;
  #cache: FileCache | undefined;
  readonly #methods: Partial<Record<ResponseMethod, MethodStatistics>> = {};

  constructor(cache?: FileCache) {
    this.#cache = cache;
  }

  /** Sets the cache, if none is set: the first registration decides. */
  setCache(cache: FileCache | undefined): void {
    this.#cache ??= cache;
  }

  count(method: ResponseMethod, bytes: number, aborted: boolean): void {
    this.#methods[method] ??= { responses: 0, bytes: 0 };
    const counts = this.#methods[method];
    counts.responses += 1;
    counts.bytes += bytes;
    if (aborted) this.#aborted += 1;
  }

  /** A copy of the counters. */
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

  /** A copy of the counters, including those of the front door. */
  readAll(): ZerosendStatistics {
    return { ...this.read(), frontDoor: this.frontDoor?.() ?? null };
  }
}
