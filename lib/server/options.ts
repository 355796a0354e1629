/** Options of the file server and the front door: roots, prefix, headers, limits. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { LimitSettings } from '#native';
import { engine } from '../runtime/engine.js';
import { failure, invalid } from '../util/errors.js';
import { checkInteger } from '../util/options.js';

/** One or more directories: paths (relative to the working directory) or `file:` URLs. */
export type Roots = string | URL | readonly (string | URL)[];

/** The absolute paths of a `root` option. */
export function rootPaths(root: Roots): string[] {
  const list = Array.isArray(root) ? (root as readonly (string | URL)[]) : [root as string | URL];
  if (list.length === 0) throw invalid('root', root, 'at least one directory');
  return list.map((entry) => {
    if (entry instanceof URL && entry.protocol === 'file:') return fileURLToPath(entry);
    if (typeof entry === 'string' && entry !== '' && !entry.includes('\0')) return path.resolve(entry);
    throw invalid('root', entry, 'a path without NUL bytes, or a file: URL');
  });
}

/** Adds the trailing slash to a prefix. */
export function checkPrefix(prefix: string): string {
  if (typeof prefix !== 'string' || !prefix.startsWith('/')) {
    throw invalid('prefix', prefix, 'a path that begins with a slash');
  }
  return prefix.endsWith('/') ? prefix : `${prefix}/`;
}

/** Checks headers; returns name, value, name, value, ... */
export function headerPairs(headers: Readonly<Record<string, string>>): string[] {
  return Object.entries(headers).flatMap(([name, value]) => {
    if (typeof value !== 'string') throw invalid(`headers['${name}']`, value, 'a string');
    return [name, value];
  });
}

/** Checks limits and adds the defaults. `allowed` are the accepted names, by default all. */
export function readLimits(
  given: Partial<Record<keyof LimitSettings, number | undefined>>,
  allowed?: readonly (keyof LimitSettings)[],
): LimitSettings {
  const limits = engine().defaultLimits();
  const names: readonly string[] = allowed ?? Object.keys(limits);
  for (const [name, value] of Object.entries(given)) {
    if (!names.includes(name))
      throw failure('ERR_ZEROSEND_INVALID_ARGUMENT', `unknown limit '${name}': use one of ${names.join(', ')}`);
    if (value === undefined) continue;
    checkInteger(`limits.${name}`, value, 0, 2 ** 31);
    limits[name as keyof LimitSettings] = value;
  }
  return limits;
}
