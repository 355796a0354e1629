/** The names under which a guard is asked about a file. */
import type { Answer } from './site.js';

const SUFFIXES: Record<string, string> = { zstd: '.zst', br: '.br', gzip: '.gz', deflate: '.deflate' };

/**
 * By which names besides `name` a file is served, to be asked about in turn: that of its directory with the slash, for an
 * index in place, and its own (with its slash in front when `rooted`). A compressed file has the name of the plain one.
 */
export function otherNames(name: string, { encoding, path }: Answer, rooted: boolean): string[] {
  const suffix = encoding === undefined ? '' : (SUFFIXES[encoding] ?? '');
  const file = suffix === '' ? path : path.slice(0, -suffix.length);
  const own = rooted ? `/${file}` : file;
  if (own === name) return [];
  return name !== '' && !name.endsWith('/') && own.startsWith(`${name}/`) ? [`${name}/`, own] : [own];
}
