/**
 * zerosend: zero-copy file serving for Node.
 *
 * This is the standalone API; the Fastify plugin is `zerosend/fastify`.
 */
export type { ZerosendError, ZerosendErrorCode } from './lib/errors.js';
export { createStaticHandler, type StaticHandler, type StaticHandlerOptions } from './lib/handler.js';
export {
  type FileSource,
  type Method,
  type SendFileOptions,
  type SendFileResult,
  type SendTarget,
  sendFile,
} from './lib/send-file.js';
export type { Coding, SiteOptions } from './lib/site.js';
export type { Road, RoadStatistics, StaticStatistics } from './lib/static/statistics.js';
