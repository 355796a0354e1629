/** The conditions of a request, which the engine evaluates. */
import type { IncomingHttpHeaders } from 'node:http';

import type { RequestConditions } from '#native';
import { staticEngine } from '../runtime/engine.js';
import type { Overrides } from './overrides.js';

/** Adds `Accept-Encoding` to the value of `Vary`. */
export function varyWithEncoding(current: unknown): string {
  const value = Array.isArray(current) ? current.join(', ') : current === undefined ? undefined : String(current);
  return staticEngine().mergeVary(value) ?? (value as string);
}

/**
 * The conditions of a request whose response would not have the status 200: preconditions and ranges do not apply (RFC 9110
 * sections 13.2.1 and 14.2).
 */
export function unconditional(
  headers: IncomingHttpHeaders,
  negotiates: boolean,
  overrides?: Overrides,
): RequestConditions | undefined {
  const acceptEncoding = negotiates ? headers['accept-encoding'] : undefined;
  if (acceptEncoding === undefined) return overrides;
  return { ...overrides, acceptEncoding: acceptEncoding as string };
}

/**
 * The conditions of a request: the headers that affect its response, and the overrides; `undefined` if there are none.
 * `negotiates`: the response depends on `Accept-Encoding`.
 */
export function conditionsOf(
  headers: IncomingHttpHeaders,
  negotiates: boolean,
  overrides?: Overrides,
): RequestConditions | undefined {
  const acceptEncoding = negotiates ? headers['accept-encoding'] : undefined;
  const range = headers.range;
  const ifNoneMatch = headers['if-none-match'];
  const ifModifiedSince = headers['if-modified-since'];
  const ifMatch = headers['if-match'];
  const ifUnmodifiedSince = headers['if-unmodified-since'];
  if (
    range === undefined &&
    ifNoneMatch === undefined &&
    ifModifiedSince === undefined &&
    ifMatch === undefined &&
    ifUnmodifiedSince === undefined &&
    acceptEncoding === undefined
  ) {
    return overrides;
  }
  const conditions: RequestConditions = { ...overrides };
  if (acceptEncoding !== undefined) conditions.acceptEncoding = acceptEncoding as string;
  if (range !== undefined) conditions.range = range;
  if (ifNoneMatch !== undefined) conditions.ifNoneMatch = ifNoneMatch;
  if (ifModifiedSince !== undefined) conditions.ifModifiedSince = ifModifiedSince;
  if (ifMatch !== undefined) conditions.ifMatch = ifMatch;
  if (ifUnmodifiedSince !== undefined) conditions.ifUnmodifiedSince = ifUnmodifiedSince;
  if (headers['if-range'] !== undefined) conditions.ifRange = headers['if-range'] as string;
  if (headers['cache-control'] !== undefined) conditions.cacheControl = headers['cache-control'];
  return conditions;
}
