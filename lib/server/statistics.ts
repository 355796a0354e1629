/** Counters of native servers. */
import type { FileCache, FileCacheStatistics } from '../cache/file-cache.js';
import { engine } from '../runtime/engine.js';
import type { Method } from '../types/method.js';

/** The names of limits in {@link FileServerStatistics}. */
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

/** Counters since the server started. */
export interface FileServerStatistics {
  /** Open connections. */
  connections: number;
  /** Accepted connections. */
  accepted: number;
  /** Connections that a front door handed off to Node; 0 for a file server. */
  handedOff: number;
  requests: number;
  /** Bytes of response bodies written to sockets. */
  bytes: number;
  /** Bytes of response heads written to sockets. */
  headBytes: number;
  /** Responses that were not sent completely, because the connection ended. */
  aborted: number;
  /** Internal errors: files that could not be read or were truncated while they were sent, and panics. */
  failures: number;
  /** Log lines that were dropped because they could not be written fast enough. */
  logLost: number;
  /** Responses by class of their status. */
  statuses: Record<'1xx' | '2xx' | '3xx' | '4xx' | '5xx', number>;
  /** File bodies by the method that sent them. */
  methods: Partial<Record<Exclude<Method, 'auto'>, number>>;
  /** How often each limit was reached. */
  limits: Record<FileServerLimit, number>;
  /** The counters of the cache, including other users of the same cache; `null` without a cache. */
  cache: FileCacheStatistics | null;
  /** The counters except those of the cache in the text format of Prometheus, version 0.0.4. */
  prometheus: string;
}

/** Counters of a front door since it started. `connections` does not include those handed off to Node. */
export type FrontDoorStatistics = FileServerStatistics;

const CLASSES = ['1xx', '2xx', '3xx', '4xx', '5xx'] as const;

/** The current counters of a server. */
export function readStatistics(server: number, cache: FileCache | undefined): FileServerStatistics {
  const { statuses, methods, limits, text, ...counts } = engine().serverCounters(server);
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

/** The counters of a server that has not started. */
export function noStatistics(cache: FileCache | undefined): FileServerStatistics {
  const zero = {
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
    ...zero,
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
