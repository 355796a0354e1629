/** Options that can differ for each response. */
import type { RequestConditions } from '#native';
import { invalid } from '../util/errors.js';
import type { SiteOptions } from './site-options.js';
import { maxAgeSeconds } from './site-settings.js';

/** Options of a single response: see `reply.sendFile`. */
export interface SliceOptions {
  /** First byte of the file to serve; ranges are relative to it. Default 0. */
  start?: number | undefined;
  /** Last byte of the file to serve. Default: the last byte of the file. */
  end?: number | undefined;
  /** Maximum length of a range response in bytes; longer ranges are shortened. Default: no limit. */
  maxContentRangeChunkSize?: number | undefined;
}

/** Values that replace the options of the site for one response. */
export type Overrides = Pick<RequestConditions, 'start' | 'last' | 'maxRangeLength' | 'maxAge'>;

/**
 * The overrides in the `options` of a response, or `undefined` without any. `defaults` are the options of the registration.
 * Throws `ERR_ZEROSEND_INVALID_ARGUMENT`.
 */
export function overridesOf(
  options: SliceOptions & Pick<SiteOptions, 'maxAge' | 'maxage'>,
  defaults: Pick<SiteOptions, 'maxAge' | 'maxage'>,
): Overrides | undefined {
  const overrides: Overrides = {};
  const start = bytes('start', options.start);
  const last = bytes('end', options.end);
  const maxRangeLength = bytes('maxContentRangeChunkSize', options.maxContentRangeChunkSize);
  if (start) overrides.start = start;
  if (last !== undefined) overrides.last = last;
  // As in @fastify/send, 0 means no limit.
  if (maxRangeLength) overrides.maxRangeLength = maxRangeLength;
  if ('maxAge' in options || 'maxage' in options) {
    const { maxAge, maxage } = { ...defaults, ...options };
    overrides.maxAge = maxAgeSeconds(maxAge ?? maxage);
  }
  for (const _ in overrides) return overrides;
  return undefined;
}

function bytes(name: string, value: number | undefined): number | undefined {
  if (value === undefined || (Number.isSafeInteger(value) && value >= 0)) return value;
  throw invalid(name, value, 'an integer number of bytes from 0 up');
}
