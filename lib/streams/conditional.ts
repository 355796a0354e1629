/**
 * Evaluates conditional requests, RFC 9110 section 13. The
 * counterpart of `crates/http/src/conditional.rs`; a test compares the two.
 *
 * The order of {@link evaluate} is the list of section 13.2.2.
 */
import type { RequestConditions } from '#native';
import type { Conformance } from './conformance.js';
import * as date from './date.js';
import * as etag from './etag.js';
import { trim } from './text.js';

/** The validators of a representation; `undefined` for those that are disabled. */
export interface Validators {
  /** The entity tag with its quotes. */
  etag: string | undefined;
  /** `Last-Modified` in seconds since 1970. */
  lastModified: number | undefined;
}

/** The result of the preconditions: continue, 304, or 412. */
export type Verdict = 'proceed' | 'not-modified' | 'precondition-failed';

/** Evaluates the preconditions for GET and HEAD of a representation that exists. */
export function evaluate(conditions: RequestConditions, validators: Validators, conformance: Conformance): Verdict {
  return conformance === 'rfc9110' ? evaluateRfc(conditions, validators) : evaluateFastify(conditions, validators);
}

function evaluateRfc(conditions: RequestConditions, validators: Validators): Verdict {
  const { ifMatch, ifUnmodifiedSince, ifNoneMatch } = conditions;
  const holds = (header: string, equal: (a: string, b: string) => boolean) => {
    const own = validators.etag;
    if (trim(header) === '*') return true;
    return own !== undefined && [...etag.list(header, 'rfc9110')].some((candidate) => equal(candidate, own));
  };
  // 1. If-Match, strong comparison; 2. If-Unmodified-Since only without it.
  if (ifMatch !== undefined) {
    if (!holds(ifMatch, etag.strongEqual)) return 'precondition-failed';
  } else if (ifUnmodifiedSince !== undefined && validators.lastModified !== undefined) {
    const limit = date.parse(ifUnmodifiedSince);
    if (limit !== undefined && validators.lastModified > limit) return 'precondition-failed';
  }
  // 3. If-None-Match, weak comparison; 4. If-Modified-Since only without it.
  if (ifNoneMatch !== undefined) return holds(ifNoneMatch, etag.weakEqual) ? 'not-modified' : 'proceed';
  return notModifiedSince(conditions, validators);
}

/**
 * `@fastify/send` differs: it compares `If-Match` weakly, evaluates `If-Unmodified-Since` also with `If-Match`, fails it without
 * `Last-Modified`, and never answers 304 to `Cache-Control: no-cache`.
 */
function evaluateFastify(conditions: RequestConditions, validators: Validators): Verdict {
  const { ifMatch, ifUnmodifiedSince, ifNoneMatch, ifModifiedSince, cacheControl } = conditions;
  if (!ifMatch && !ifNoneMatch && !ifModifiedSince && !ifUnmodifiedSince) return 'proceed';
  const listed = (header: string) => {
    const own = validators.etag;
    if (!own) return false;
    const weakly = own.startsWith('W/') ? etag.opaque(own) : undefined;
    return [...etag.list(header, 'fastify-static')].some((candidate) => candidate === own || candidate === weakly);
  };
  if (ifMatch && ifMatch !== '*' && !listed(ifMatch)) return 'precondition-failed';
  const limit = ifUnmodifiedSince === undefined ? undefined : date.parse(ifUnmodifiedSince);
  if (limit !== undefined && (validators.lastModified === undefined || validators.lastModified > limit)) {
    return 'precondition-failed';
  }
  if (cacheControl?.includes('no-cache')) return 'proceed';
  if (ifNoneMatch !== undefined) return ifNoneMatch === '*' || listed(ifNoneMatch) ? 'not-modified' : 'proceed';
  return notModifiedSince(conditions, validators);
}

function notModifiedSince({ ifModifiedSince }: RequestConditions, { lastModified }: Validators): Verdict {
  const since = ifModifiedSince === undefined ? undefined : date.parse(ifModifiedSince);
  return since !== undefined && lastModified !== undefined && lastModified <= since ? 'not-modified' : 'proceed';
}

/**
 * Step 5: whether `Range` applies, given `If-Range`.
 *
 * RFC 9110 section 13.1.5 requires a strong tag or the exact date; `@fastify/send` accepts its weak tag anywhere in the header, and
 * any later date.
 */
export function rangeApplies(ifRange: string | undefined, validators: Validators, conformance: Conformance): boolean {
  if (ifRange === undefined) return true;
  const { etag: own, lastModified } = validators;
  if (conformance === 'rfc9110') {
    const header = trim(ifRange);
    if (header.includes('"')) return own !== undefined && etag.strongEqual(header, own);
    const exactly = date.parse(header);
    return exactly !== undefined && lastModified === exactly;
  }
  if (ifRange.includes('"')) return own !== undefined && ifRange.includes(own);
  const limit = date.parse(ifRange);
  return limit !== undefined && (lastModified === undefined || lastModified <= limit);
}
