/** Which road responses took, counted. */
import type { FileCache, FileCacheStatistics } from '../api/file-cache.js';
import type { FrontDoorStatistics } from '../frontdoor/options.js';
import type { TransferReport } from '../runtime/native.js';

/**
 * How the bytes of a response left: the method of the engine that moved them; `'stream'`, through a Node stream (TLS,
 * HTTP/2, `inject()`, a compressor, all of them elsewhere than on Linux); `'none'`, no bytes (HEAD, 304, empty files).
 */
export type Road = TransferReport['method'] | 'stream' | 'none';

/** What one road has carried. */
export interface RoadStatistics {
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
  /** By road; a road that nothing took is absent. */
  roads: Partial<Record<Road, RoadStatistics>>;
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
  readonly #roads: Partial<Record<Road, RoadStatistics>> = {};

  constructor(cache?: FileCache) {
    this.#cache = cache;
  }

  /** Tells of this cache, unless of another already: the first registration's. */
  watch(cache: FileCache | undefined): void {
    this.#cache ??= cache;
  }

  count(road: Road, bytes: number, aborted: boolean): void {
    this.#roads[road] ??= { responses: 0, bytes: 0 };
    const counts = this.#roads[road];
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
      roads: {},
      cache: this.#cache?.stats() ?? null,
    };
    for (const [road, counts] of Object.entries(this.#roads) as [Road, RoadStatistics][]) {
      sum.responses += counts.responses;
      sum.bytes += counts.bytes;
      sum.roads[road] = { ...counts };
    }
    return sum;
  }

  /** The counts now, with those of the front door. */
  readAll(): ZerosendStatistics {
    return { ...this.read(), frontDoor: this.frontDoor?.() ?? null };
  }
}
