/**
 * Plans the response for a file: status, headers and body. The counterpart of
 * `crates/http/src/site/plan.rs`; a test compares the two.
 *
 * 1. validators and fixed headers
 * 2. preconditions
 * 3. range
 * 4. body
 *
 * The order of the headers is that of `@fastify/send`.
 */
import { randomBytes } from 'node:crypto';

import type { RequestConditions } from '#native';
import { evaluate, rangeApplies, type Validators } from './conditional.js';
import * as date from './date.js';
import { contentType } from './mime.js';
import { SUFFIXES } from './negotiation.js';
import { nowNs, type OpenFile } from './open-file.js';
import { type ByteRange, decide, type RangeDecision } from './range.js';
import type { Encoding, SiteOptions } from './settings.js';
import { validatorsOf } from './validators.js';

/** The file for a request. */
export interface Found {
  file: OpenFile;
  /** The path relative to the root, including index, extension and coding suffix. */
  path: string;
  encoding: Encoding | undefined;
}

/** The response to send. */
export interface Response {
  /** 200, 206, 304, 412 or 416. */
  status: number;
  /** Name, value, name, value, ... */
  headers: string[];
  /** Bytes and ranges of the file, in order; empty for HEAD, 304 and errors. */
  body: (Buffer | ByteRange)[];
}

/** Plans the response. `contentTag` is the entity tag made from the content, if known. */
export function plan(
  { file, path, encoding }: Found,
  contentTag: string | undefined,
  headOnly: boolean,
  conditions: RequestConditions,
  options: SiteOptions,
): Response {
  const { size } = file.meta;
  const own = validatorsOf(file.meta, contentTag, options, nowNs());
  const plainPath = encoding === undefined ? path : path.slice(0, -SUFFIXES[encoding].length);
  const given = conditions.lastModified;
  const validators: Validators = {
    etag: conditions.etag ?? own.validators.etag,
    lastModified: given === undefined ? own.validators.lastModified : date.parse(given),
  };
  const { start = 0 } = conditions;
  const length = sliceLength(start, conditions.last, size);
  const verdict = evaluate(conditions, validators, options.conformance);
  if (verdict === 'precondition-failed') return { status: 412, headers: [], body: [] };
  const decision = verdict === 'proceed' ? decideRange(headOnly, conditions, options, validators, length) : 'whole';
  if (decision === 'unsatisfiable') {
    return { status: 416, headers: ['content-range', `bytes */${length}`], body: [] };
  }

  const headers: string[] = [];
  const cacheControl = options.caching.value(plainPath, conditions.maxAge);
  if (options.acceptRanges) headers.push('accept-ranges', 'bytes');
  if (cacheControl !== undefined) headers.push('cache-control', cacheControl);
  if (given !== undefined) headers.push('last-modified', given);
  else if (own.lastModified !== undefined) headers.push('last-modified', date.format(own.lastModified));
  if (validators.etag !== undefined) headers.push('etag', validators.etag);
  if (options.preCompressed.length > 0) headers.push('vary', 'accept-encoding');
  if (verdict === 'not-modified') return { status: 304, headers, body: [] };

  if (encoding !== undefined) headers.push('content-encoding', encoding);
  // `@fastify/static` sends the type of a precompressed file even if the option is off.
  const typed = options.contentType || (encoding !== undefined && options.conformance === 'fastify-static');
  const body = withBody(decision, start, length, typed ? contentType(plainPath) : undefined, headers);
  headers.push('content-length', String(lengthOf(body)));
  return { status: decision === 'whole' ? 200 : 206, headers, body: headOnly ? [] : body };
}

/** The length of a body in bytes. */
export function lengthOf(body: Response['body']): number {
  return body.reduce((sum, part) => sum + (Buffer.isBuffer(part) ? part.length : part.end - part.start), 0);
}

/** The length of the slice of a file of `size` bytes that `start` and `last` select. */
function sliceLength(start: number, last: number | undefined, size: number): number {
  const rest = Math.max(0, size - start);
  return last === undefined ? rest : Math.min(rest, Math.max(0, last + 1 - start));
}

function decideRange(
  headOnly: boolean,
  conditions: RequestConditions,
  options: SiteOptions,
  validators: Validators,
  size: number,
): RangeDecision {
  const { range, ifRange, maxRangeLength = Number.POSITIVE_INFINITY } = conditions;
  const { conformance } = options;
  // RFC 9110 section 14.2: a range is defined for GET only. `@fastify/send` also applies it to HEAD.
  const applies = options.acceptRanges && (!headOnly || conformance === 'fastify-static');
  if (range === undefined || !applies || !rangeApplies(ifRange, validators, conformance)) return 'whole';
  const decision = decide(range, size, options);
  if (typeof decision === 'string' || decision.length > 1) return decision;
  return decision.map(({ start, end }) => ({ start, end: Math.min(end, start + maxRangeLength) }));
}

/** Adds the headers for type and range; returns the body. */
function withBody(
  decision: ByteRange[] | 'whole',
  first: number,
  size: number,
  type: string | undefined,
  headers: string[],
): Response['body'] {
  const inFile = ({ start, end }: ByteRange): ByteRange => ({ start: first + start, end: first + end });
  // RFC 9110 section 14.4.
  const contentRange = ({ start, end }: ByteRange) => `bytes ${start}-${end - 1}/${size}`;
  if (decision !== 'whole' && decision.length > 1) {
    // `multipart/byteranges`, RFC 9110 section 14.6, with a random boundary, which no file can contain.
    const boundary = `zerosend-${randomBytes(16).toString('hex')}`;
    headers.push('content-type', `multipart/byteranges; boundary=${boundary}`);
    const typeLine = type === undefined ? '' : `content-type: ${type}\r\n`;
    const parts = decision.flatMap((range) => [
      Buffer.from(`\r\n--${boundary}\r\n${typeLine}content-range: ${contentRange(range)}\r\n\r\n`),
      inFile(range),
    ]);
    return [...parts, Buffer.from(`\r\n--${boundary}--\r\n`)];
  }
  if (type !== undefined) headers.push('content-type', type);
  if (decision === 'whole') return [inFile({ start: 0, end: size })];
  const [range] = decision as [ByteRange];
  headers.push('content-range', contentRange(range));
  return [inFile(range)];
}
