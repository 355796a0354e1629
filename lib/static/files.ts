/** The files that get a route with `wildcard: false`. */
import path from 'node:path';

import type { FastifyStaticOptions } from './options.js';

/** A route for a file or the index of a directory. */
export interface FileRoute {
  url: string;
  /** The decoded path relative to the root, with a leading slash. */
  pathname: string;
  root: string;
}

/** The routes for all files that exist below the roots. Of several files with the same path, that of the first root is served. */
export async function fileRoutes(
  roots: readonly string[],
  prefix: string,
  options: FastifyStaticOptions,
): Promise<{ routes: FileRoute[]; skipped: string[] }> {
  // Loaded on demand: it is not needed for other options.
  const { glob } = await import('glob');
  const { index = ['index.html'], globIgnore, serveDotFiles } = options;
  const indexes = new Set(index === false ? [] : typeof index === 'string' ? [index] : index);
  const routes = new Map<string, FileRoute>();
  const directories = new Map<string, FileRoute>();
  const skipped: string[] = [];
  for (const root of roots) {
    const files = await glob('**/**', {
      cwd: root,
      absolute: false,
      follow: true,
      nodir: true,
      // Slashes on Windows, too.
      posix: true,
      dot: serveDotFiles ?? false,
      ...(globIgnore === undefined ? {} : { ignore: globIgnore }),
    });
    for (const file of files) {
      // find-my-way has no escape for an asterisk.
      if (file.includes('*')) {
        skipped.push(file);
        continue;
      }
      const url = prefix + escapeColons(file);
      if (routes.has(url)) continue;
      routes.set(url, { url, pathname: `/${file}`, root });
      const directory = path.posix.dirname(file);
      if (!indexes.has(path.posix.basename(file)) || directories.has(directory)) continue;
      const below = directory === '.' ? '' : `${directory}/`;
      directories.set(directory, { url: prefix + escapeColons(below), pathname: `/${below}`, root });
    }
  }
  const all = [...routes.values(), ...directories.values()];
  if (options.redirect === true) {
    for (const { url, pathname, root } of directories.values()) {
      const bare = url.replace(/\/$/, '');
      if (bare !== url) all.push({ url: bare, pathname: pathname.replace(/\/$/, ''), root });
    }
  }
  return { routes: all, skipped };
}

/** Escapes colons, which begin a parameter, for find-my-way. */
function escapeColons(file: string): string {
  return file.replaceAll(':', '::');
}
