/**
 * The validators of a version of a file: its entity tag and `Last-Modified`. The counterpart of
 * `crates/core/src/static_site/validators.rs`; the comparison test holds the two together.
 */
import type { Validators } from './conditional.js';
import * as etag from './etag.js';
import { type FileMeta, isOlderThan, SECOND_NS } from './open-file.js';
import type { SiteOptions } from './settings.js';

/** How long after its last change a file may still be changed without that being seen. */
const YOUNG_NS = 2n * SECOND_NS;

export interface FileValidators {
  /** What conditions are judged by. */
  validators: Validators;
  /** What `Last-Modified` says, in seconds since 1970; `undefined`: nothing. */
  lastModified: number | undefined;
}

/** The validators of the version `meta` at the time `now`, in nanoseconds since 1970. */
export function validatorsOf(
  meta: FileMeta,
  contentTag: string | undefined,
  options: SiteOptions,
  now: bigint,
): FileValidators {
  const { conformance, lastModified: wanted } = options;
  const tag = options.etag ? (contentTag ?? tagOf(meta, options, now)) : undefined;
  const modified = Math.floor(etag.nodeMtimeMs(meta.mtimeNs) / 1000);
  const seconds = Number(now / SECOND_NS);
  if (!wanted) return { validators: { etag: tag, lastModified: undefined }, lastModified: undefined };
  const isKnown = hasModificationTime(meta);
  if (isKnown && modified <= seconds)
    return { validators: { etag: tag, lastModified: modified }, lastModified: modified };
  // Unknown. `@fastify/send` would take that for "not modified" in `If-Range`: a time later than all others fails every
  // condition. RFC 9110 section 8.8.2.1: the header is not later than `Date`, which Node makes once a second.
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

/** False for a modification time that was zeroed: 0 and 1 are what reproducible builds set; before 1970 no file was written. */
function hasModificationTime({ mtimeNs }: FileMeta): boolean {
  return mtimeNs >= 2n * SECOND_NS;
}
