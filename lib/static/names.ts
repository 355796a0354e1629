/** The names of a file for `allowedPath`. */
import type { Answer } from './site.js';

const SUFFIXES: Record<string, string> = { zstd: '.zst', br: '.br', gzip: '.gz', deflate: '.deflate' };

/**
 * The names other than the requested `name` that `allowedPath` must allow: the directory with a trailing slash, if its index is
 * served without a redirect, and the path of the file (with a leading slash if `rooted`). The name of a precompressed file is that
 * of the original file.
 */
export function otherNames(name: string, { encoding, path }: Answer, rooted: boolean): string[] {
  const suffix = encoding === undefined ? '' : (SUFFIXES[encoding] ?? '');
  const file = suffix === '' ? path : path.slice(0, -suffix.length);
  const own = rooted ? `/${file}` : file;
  if (own === name) return [];
  return name !== '' && !name.endsWith('/') && own.startsWith(`${name}/`) ? [`${name}/`, own] : [own];
}
