/** `createStaticHandler`: static files for `node:http`, Express and Connect. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import path from 'node:path';

import { cacheOption } from '../cache/cache-option.js';
import { invalid } from '../util/errors.js';
import { Exchange } from './exchange.js';
import type { StaticHandlerOptions } from './handler-options.js';
import { rootPath } from './options.js';
import { Site } from './site.js';
import { DEFAULT_CACHE } from './site-options.js';
import { type StaticStatistics, Statistics } from './statistics.js';

/** A listener for `http.createServer`, or middleware for Express and Connect. */
export interface StaticHandler {
  /**
   * Answers GET and HEAD requests for files. All other requests (other methods, missing files, refused paths) are passed to
   * `next`; without `next` they are answered with 404, 403, 405 or 400. If a file cannot be read, `next` is called with the error;
   * without `next` the answer is 500. `next` is called once. An exception of `next` is thrown to the caller, or is an uncaught
   * exception if the disk was read first.
   */
  (request: IncomingMessage, response: ServerResponse, next?: (error?: unknown) => void): void;
  /** A copy of the counters. */
  stats(): StaticStatistics;
  /** Releases its resources. Pending responses still complete; later requests are treated as missing files. */
  close(): void;
}

/**
 * Serves the files below `root` (an absolute path or a `file:` URL; of several, the first that contains the file is used).
 *
 * On Linux the bytes do not pass through JavaScript; on other platforms they are sent with Node streams, with the same responses
 * and options, and without a cache.
 *
 * Throws `ERR_ZEROSEND_INVALID_ARGUMENT`, and `ERR_ZEROSEND_UNSUPPORTED` on Linux without the native binary.
 */
export function createStaticHandler(
  root: string | URL | (string | URL)[],
  options: StaticHandlerOptions = {},
): StaticHandler {
  const roots = (Array.isArray(root) ? root : [root]).map((one) => checkRoot(one));
  for (const name of ['allowedPath', 'setHeaders', 'onFile'] as const) {
    const value: unknown = options[name];
    if (value !== undefined && typeof value !== 'function') throw invalid(name, value, 'a function');
  }
  const cache = cacheOption(options.cache, DEFAULT_CACHE);
  const site = new Site(roots, { ...options, cache });
  const statistics = new Statistics(cache);
  let closed = false;
  const handler = (request: IncomingMessage, response: ServerResponse, next?: (error?: unknown) => void): void => {
    const exchange = new Exchange(site, options, statistics, request, response, next);
    if (closed) exchange.delegate(404);
    else exchange.run();
  };
  return Object.assign(handler, {
    stats: () => statistics.read(),
    close: () => {
      closed = true;
      site.close();
      if (cache !== options.cache) cache?.close();
    },
  });
}

function checkRoot(root: unknown): string {
  const directory = root instanceof URL && root.protocol !== 'file:' ? root : rootPath(root as string | URL);
  if (typeof directory === 'string' && path.isAbsolute(directory)) return directory;
  throw invalid('root', root, 'an absolute path or a file: URL');
}
