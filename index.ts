/**
 * zerosend: zero-copy file serving for Node.
 *
 * This is the standalone API; the Fastify plugin is `zerosend/fastify`.
 */
export type { BoundAddress, SocketAddress } from './lib/address.js';
export type { ZerosendError, ZerosendErrorCode } from './lib/errors.js';
export {
  CachedFile,
  FileCache,
  type FileCacheEntry,
  type FileCacheOptions,
  type FileCacheStatistics,
  type PreloadOptions,
  type PreloadResult,
} from './lib/file-cache.js';
export {
  createFileServer,
  type FileServer,
  type FileServerAddress,
  type FileServerLimits,
  type FileServerOptions,
  type LogFormat,
} from './lib/file-server.js';
export { type FrontDoor, frontDoor } from './lib/front-door/http.js';
export type {
  FrontDoorLimits,
  FrontDoorMount,
  FrontDoorOptions,
  FrontDoorStatistics,
} from './lib/front-door/options.js';
export { createStaticHandler, type StaticHandler, type StaticHandlerOptions } from './lib/handler.js';
export type { JoinOptions } from './lib/joiner.js';
export { MappedFile, type MappedFileOptions } from './lib/mapped-file.js';
export { type MemoryMap, type MemoryMapOptions, type MemoryUse, memoryMaps } from './lib/memory-maps.js';
export {
  type PageCacheMeasurement,
  type PageCachePace,
  type PageCacheStatus,
  type PageResidency,
  type PageRun,
  pageCache,
  type WarmOptions,
  type WarmResult,
} from './lib/page-cache.js';
export { allocPages, type SendPagesOptions, sendPages } from './lib/pages.js';
export { Pipe, type PipeOptions, type PipeStatistics, pipeStatistics } from './lib/pipe.js';
export { fileToPipe, pipeToFile } from './lib/pipe-files.js';
export { type NetworkInterface, type PipeLimits, type Probe, type ProbedMechanism, probe } from './lib/probe.js';
export {
  type Moved,
  type RawEnd,
  type SpliceOptions,
  sendfile,
  splice,
  tee,
  type VmspliceOptions,
  vmsplice,
} from './lib/raw.js';
export { type ReceiveFileOptions, type ReceiveSource, receiveFile } from './lib/receive-file.js';
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
} from './lib/relay.js';
export { type RelayResult, type RelaySocket, relay } from './lib/relay-sockets.js';
export {
  type FileSource,
  type Method,
  type SendFileOptions,
  type SendFileResult,
  type SendFilesOptions,
  type SendPart,
  type SendTarget,
  sendFile,
  sendFiles,
  sliceRanges,
} from './lib/send-file.js';
export type { FileServerLimit, FileServerStatistics } from './lib/server-statistics.js';
export { SharedBuffer, type SharedBufferOptions } from './lib/shared-buffer.js';
export { type DrainTarget, type OpenRingOptions, SharedRing, type SharedRingOptions } from './lib/shared-ring.js';
export type { Coding, SiteOptions } from './lib/site.js';
export {
  createSplitter,
  type SplitSink,
  type SplitSource,
  type Splitter,
  type SplitterOptions,
  type SplitterResult,
} from './lib/splitter.js';
export type { Road, RoadStatistics, StaticStatistics } from './lib/static/statistics.js';
