/** Requests for files, from routes and from `reply.sendFile`. */
import type { FastifyReply } from 'fastify';
import type { RequestConditions } from '#native';

import { conditionsOf, unconditional } from './conditions.js';
import type { ReplyOptions } from './options.js';
import type { Overrides } from './overrides.js';
import type { Site } from './site.js';

export interface FileRequest {
  /** The path relative to the root. */
  pathname: string;
  /** The path is from a URL: percent-encoded, without the query. */
  encoded: boolean;
  /** The root passed to `allowedPath`. Default: the root of the site that contains the file. */
  root?: string | undefined;
  /** `pathname` is not relative to a root, but an absolute path of the file system. */
  unrooted?: boolean;
  options?: ReplyOptions | undefined;
  /** Replaces options of the site. */
  overrides?: Overrides | undefined;
}

/**
 * The conditions of the request for a file. `@fastify/static` evaluates preconditions and ranges for any 2xx status that was
 * set before; RFC 9110 only for 200 (sections 13.2.1 and 14.2).
 */
export function requestConditions(
  reply: FastifyReply,
  site: Site,
  { overrides }: FileRequest,
): RequestConditions | undefined {
  const { statusCode } = reply;
  const max = site.options.conformance === 'rfc9110' ? 200 : 299;
  const conditions = statusCode >= 200 && statusCode <= max ? conditionsOf : unconditional;
  return conditions(reply.request.headers, site.negotiates, overrides);
}
