/**
 * The validators of a file: `ETag` and `Last-Modified`. The counterpart of
 * `crates/core/src/static_site/validators.rs`; a test compares the two.
 */
import type { Validators } from './conditional.js';
import * as etag from './etag.js';
import { type FileMeta, isOlderThan, SECOND_NS } from './open-file.js';
import type { SiteOptions } from './settings.js';

/** Strong tags of files that changed more recently are sent as weak: another change may not alter the times. */
const YOUNG_NS = 2n * SECOND_NS;

export interface FileValidators {
  /** The validators that conditions are evaluated with. */
  validators: Validators;
  /** The value of `Last-Modified` in seconds since 1970; `undefined` for no header. */
  lastModified: number | undefined;
}

/** The validators of a file at the time `now`, in nanoseconds since 1970. */
export function validatorsOf(
  meta: FileMeta,
  contentTag: string | undefined,
  options: SiteOptions,
  now: bigint,
): FileValidators {
  const { conformance, lastModified: enabled } = options;
  const tag = options.etag ? (contentTag ?? tagOf(meta, options, now)) : undefined;
  const modified = Math.floor(etag.nodeMtimeMs(meta.mtimeNs) / 1000);
  const seconds = Number(now / SECOND_NS);
  if (!enabled) return { validators: { etag: tag, lastModified: undefined }, lastModified: undefined };
  const isKnown = hasModificationTime(meta);
  if (isKnown && modified <= seconds)
    return { validators: { etag: tag, lastModified: modified }, lastModified: modified };
  // Unknown. Infinity fails every condition of `@fastify/send`, including `If-Range`. RFC 9110 section 8.8.2.1: the header must not be
  // later than `Date`, which Node updates once a second.
  const unknown = conformance === 'fastify-static' ? Number.POSITIVE_INFINITY : undefined;
  return { validators: { etag: tag, lastModified: unknown }, lastModified: isKnown ? seconds - 1 : undefined };
}

function tagOf(meta: FileMeta, { strongTags, contentTags }: SiteOptions, now: bigint): string {
  const { size, mtimeNs, ctimeNs } = meta;
  if (!strongTags || contentTags) {
    return etag.weak(size, etag.nodeMtimeMs(hasModificationTime(meta) ? mtimeNs : ctimeNs));
  }
  const tag = etag.strong(size, mtimeNs, ctimeNs);
  return isOlderThan(meta, YOUNG_NS, now) ? tag : `W/${tag}`;
}

/** Whether the modification time is set: reproducible builds set it to 0 or 1. */
function hasModificationTime({ mtimeNs }: FileMeta): boolean {
  return mtimeNs >= 2n * SECOND_NS;
}
