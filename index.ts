/**
 * zerosend: zero-copy file serving for Node.
 *
 * This is the standalone API; the Fastify plugin is `zerosend/fastify`.
 */
export { allocPages, type SendPagesOptions, sendPages } from './lib/api/allocated-pages.js';
export {
  createFileServer,
  type FileServer,
  type FileServerAddress,
  type FileServerLimits,
  type FileServerOptions,
  type LogFormat,
} from './lib/api/file-server.js';
export { MappedFile, type MappedFileOptions } from './lib/api/mapped-file.js';
export { type MemoryMap, type MemoryMapOptions, type MemoryUse, memoryMaps } from './lib/api/memory-maps.js';
export {
  type PageCacheMeasurement,
  type PageCacheStatus,
  type PageCacheThroughput,
  type PageResidency,
  type PageRun,
  pageCache,
  type WarmOptions,
  type WarmResult,
} from './lib/api/page-cache.js';
export { Pipe, type PipeOptions, type PipeStatistics, pipeStatistics } from './lib/api/pipe.js';
export { fileToPipe, pipeToFile } from './lib/api/pipe-files.js';
export { type NetworkInterface, type PipeLimits, type Probe, type ProbedMechanism, probe } from './lib/api/probe.js';
export {
  createEchoServer,
  createProxy,
  type ProxyClient,
  type ProxyMirror,
  type ProxyOptions,
  type ProxyTarget,
  type Relay,
  type RelayOptions,
  type RelayStatistics,
} from './lib/api/proxy.js';
export {
  type Moved,
  type RawEnd,
  type SpliceOptions,
  sendfile,
  splice,
  tee,
  type VmspliceOptions,
  vmsplice,
} from './lib/api/raw.js';
export { type ReceiveFileOptions, type ReceiveSource, receiveFile } from './lib/api/receive-file.js';
export { type RelayResult, type RelaySocket, relay } from './lib/api/relay.js';
export {
  type FileSource,
  type SendFileOptions,
  type SendFileResult,
  type SendFilesOptions,
  type SendPart,
  type SendTarget,
  sendFile,
  sendFiles,
  sliceRanges,
} from './lib/api/send-file.js';
export { SharedBuffer, type SharedBufferOptions } from './lib/api/shared-buffer.js';
export { type OpenRingOptions, type PipeToTarget, SharedRing, type SharedRingOptions } from './lib/api/shared-ring.js';
export {
  createSplitter,
  type SplitSink,
  type SplitSource,
  type Splitter,
  type SplitterOptions,
  type SplitterResult,
} from './lib/api/splitter.js';
export { CachedFile } from './lib/cache/cached-file.js';
export { FileCache, type FileCacheEntry, type FileCacheStatistics } from './lib/cache/file-cache.js';
export type { FileCacheOptions } from './lib/cache/options.js';
export type { PreloadOptions, PreloadResult } from './lib/cache/preload.js';
export { type FrontDoor, frontDoor } from './lib/frontdoor/http.js';
export type {
  FrontDoorLimits,
  FrontDoorMount,
  FrontDoorOptions,
} from './lib/frontdoor/options.js';
export type { RelaySessionOptions } from './lib/runtime/relay-session.js';
export type { FileServerLimit, FileServerStatistics, FrontDoorStatistics } from './lib/server/statistics.js';
export { createStaticHandler, type StaticHandler } from './lib/static/handler.js';
export type { StaticHandlerOptions } from './lib/static/handler-options.js';
export type { Coding, SiteOptions } from './lib/static/site-options.js';
export type { MethodStatistics, StaticStatistics } from './lib/static/statistics.js';
export type { Method, ResponseMethod } from './lib/types/method.js';
export type { BoundAddress, SocketAddress } from './lib/util/address.js';
export type { ZerosendError, ZerosendErrorCode } from './lib/util/errors.js';
