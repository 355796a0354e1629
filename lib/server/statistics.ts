/** What native servers count. */

import type { FileCache, FileCacheStatistics } from '../cache/file-cache.js';
import { engine } from '../runtime/engine.js';
import type { Method } from '../types/method.js';

/** Names of limits in {@link FileServerStatistics}. */
export type FileServerLimit =
  | 'connections'
  | 'connectionsPerAddress'
  | 'head'
  | 'body'
  | 'requests'
  | 'headTimeout'
  | 'idleTimeout'
  | 'sendTimeout'
  | 'minRate'
  | 'diskTimeout'
  | 'descriptors'
  | 'handoffQueue';

export interface FileServerStatistics {
  /** Open now. */
  connections: number;
  accepted: number;
  /** Connections given to Node by a front door; 0 for others. */
  handedOff: number;
  requests: number;
  /** Bytes of bodies that were handed to the kernel. */
  bytes: number;
  /** Bytes of heads that were handed to the kernel. */
  headBytes: number;
  /** Responses whose connection ended before they did. */
  aborted: number;
  /** Errors of the server itself: files that cannot be read, or became shorter while they were sent, and contained panics. */
  failures: number;
  /** Lines of the log that were lost because it could not be written fast enough. */
  logLost: number;
  /** Responses by class. */
  statuses: Record<'1xx' | '2xx' | '3xx' | '4xx' | '5xx', number>;
  /** Bodies of files by the method that sent them. */
  methods: Partial<Record<Exclude<Method, 'auto'>, number>>;
  /** How often each limit was met. */
  limits: Record<FileServerLimit, number>;
  /** What the cache has counted, for all who use it; `null` without one. */
  cache: FileCacheStatistics | null;
  /** All of it but the cache in Prometheus' text form, version 0.0.4. */
  prometheus: string;
}

/** What a front door has counted since it listens. `connections` are those not handed over. */
export type FrontDoorStatistics = FileServerStatistics;

const CLASSES = ['1xx', '2xx', '3xx', '4xx', '5xx'] as const;

/** The counters of the server `token` now. */
export function readStatistics(token: number, cache: FileCache | undefined): FileServerStatistics {
  const { statuses, methods, limits, text, ...counts } = engine().serverCounters(token);
  const names = engine().methodNames();
  return {
    ...counts,
    statuses: zip(CLASSES, statuses) as FileServerStatistics['statuses'],
    methods: Object.fromEntries(Object.entries(zip(names, methods)).filter(([, count]) => count > 0)),
    limits: zip(engine().limitNames(), limits) as FileServerStatistics['limits'],
    cache: cache?.stats() ?? null,
    prometheus: text,
  };
}

/** The counters of a server that has not listened yet. */
export function noStatistics(cache: FileCache | undefined): FileServerStatistics {
  const none = {
    connections: 0,
    accepted: 0,
    handedOff: 0,
    requests: 0,
    bytes: 0,
    headBytes: 0,
    aborted: 0,
    failures: 0,
    logLost: 0,
  };
  return {
    ...none,
    statuses: zip(CLASSES, []) as FileServerStatistics['statuses'],
    methods: {},
    limits: zip(engine().limitNames(), []) as FileServerStatistics['limits'],
    cache: cache?.stats() ?? null,
    prometheus: '',
  };
}

function zip(names: readonly string[], values: readonly number[]): Record<string, number> {
  return Object.fromEntries(names.map((name, at) => [name, values[at] ?? 0]));
}
