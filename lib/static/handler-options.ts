/** The options of `createStaticHandler`. */
import type { Stats } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';

import type { SiteOptions } from './site-options.js';

export interface StaticHandlerOptions extends SiteOptions {
  /**
   * Return false to treat a file as missing; a promise is awaited. Called with the path of the request (decoded, relative to the
   * mount), and again with the path of the file if that differs (an index, an extension, a fallback). Default: all are allowed.
   */
  allowedPath?: ((path: string, request: IncomingMessage) => boolean | Promise<boolean>) | undefined;
  /**
   * Called for each response with a file (200, 206, 304) to modify its headers. Headers that were set on the response before are
   * kept, except for length, range and coding. Preconditions are compared with an `ETag` or `Last-Modified` that was set before.
   * Preconditions and ranges are evaluated if the status is 200.
   */
  setHeaders?: ((response: ServerResponse, path: string, stat: Stats) => void) | undefined;
  /** Called with the file before it is sent; awaited. An error is passed to `next`, or answered with 500. */
  onFile?: ((path: string, stat: Stats) => void | Promise<void>) | undefined;
}
