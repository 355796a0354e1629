/** `wildcard: false`: which files get a route of their own. */
import path from 'node:path';

import type { FastifyStaticOptions } from './options.js';

/** A route of a file or of a directory's index. */
export interface FileRoute {
  url: string;
  /** The path below the root, with its slash, decoded. */
  pathname: string;
  root: string;
}

/** The routes for all files that are below the roots now. Of files with the same path the first root's is served. */
export async function fileRoutes(
  roots: readonly string[],
  prefix: string,
  options: FastifyStaticOptions,
): Promise<{ routes: FileRoute[]; skipped: string[] }> {
  // Only here, so that nobody else waits for it to be loaded.
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
      // With slashes on Windows too.
      posix: true,
      dot: serveDotFiles ?? false,
      ...(globIgnore === undefined ? {} : { ignore: globIgnore }),
    });
    for (const file of files) {
      // The router has no way to write a star that stands for itself.
      if (file.includes('*')) {
        skipped.push(file);
        continue;
      }
      const url = prefix + literally(file);
      if (routes.has(url)) continue;
      routes.set(url, { url, pathname: `/${file}`, root });
      const directory = path.posix.dirname(file);
      if (!indexes.has(path.posix.basename(file)) || directories.has(directory)) continue;
      const below = directory === '.' ? '' : `${directory}/`;
      directories.set(directory, { url: prefix + literally(below), pathname: `/${below}`, root });
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

/** A colon begins a parameter; two of them are one that stands for itself. */
function literally(file: string): string {
  return file.replaceAll(':', '::');
}
