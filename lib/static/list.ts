/** Directory listings, as JSON or as HTML made by a function of the application. */
import type { Stats } from 'node:fs';
import path from 'node:path';

import type { Directory } from './directory.js';

/** Totals for a directory, including all subdirectories. */
export interface ExtendedInformation {
  /** Files in the directory itself. */
  fileCount: number;
  totalFileCount: number;
  /** Subdirectories of the directory itself. */
  folderCount: number;
  totalFolderCount: number;
  /** Total size of all files in bytes. */
  totalSize: number;
  /** Time of the last modification of any file in milliseconds since 1970; 0 without files. */
  lastModified: number;
}

export interface ListDir {
  href: string;
  name: string;
  stats: Stats;
  extendedInfo?: ExtendedInformation;
}

export interface ListFile {
  href: string;
  name: string;
  stats: Stats;
}

export type ListRender = (dirs: ListDir[], files: ListFile[]) => string;

export interface ListOptions {
  /** Names under which the listing of a directory is served; `'/'` is the path with a trailing slash. Default none. */
  names?: string[];
  /** Add {@link ExtendedInformation} to directories, which requires reading all subdirectories. Default false. */
  extendedFolderInfo?: boolean;
  /** List names only, or names with `fs.Stats`. Default `'names'`. */
  jsonFormat?: 'names' | 'extended';
}

export interface ListOptionsJsonFormat extends ListOptions {
  /** The parameter `format` of the URL takes precedence. Default `'json'`. */
  format?: 'json';
  /** Required for `?format=html`. */
  render?: ListRender;
}

export interface ListOptionsHtmlFormat extends ListOptions {
  format: 'html';
  render: ListRender;
}

interface Entry {
  name: string;
  stats: Stats;
  extendedInfo?: ExtendedInformation;
}

export interface Listing {
  dirs: Entry[];
  files: Entry[];
}

/** Number of entries processed in parallel. */
const CONCURRENCY = 32;

/** Whether a path is one of the names under which a listing is served. */
export function isListName(pathname: string, { names }: ListOptions): boolean {
  return (
    names !== undefined && (names.includes(path.basename(pathname)) || (names.includes('/') && pathname.endsWith('/')))
  );
}

/** The content of `directory`, sorted by name. Entries that cannot be read are left out. */
export async function listDirectory(directory: Directory, options: ListOptions): Promise<Listing> {
  const listing: Listing = { dirs: [], files: [] };
  await forEachParallel(await directory.entries(), async (entry) => {
    const { name } = entry;
    const stats = await directory.stat(entry);
    if (!stats.isDirectory()) listing.files.push({ name, stats });
    else if (!options.extendedFolderInfo) listing.dirs.push({ name, stats });
    else listing.dirs.push({ name, stats, extendedInfo: await extendedInformation(await directory.open(name)) });
  });
  listing.dirs.sort(byName);
  listing.files.sort(byName);
  return listing;
}

/** The listing in the JSON format. */
export function asJson({ dirs, files }: Listing, { jsonFormat }: ListOptions): unknown {
  if (jsonFormat === 'extended') return { dirs, files };
  const names = (entries: Entry[]) => entries.map(({ name }) => name);
  return { dirs: names(dirs), files: names(files) };
}

/** The listing for `render`, with links, for a request for `pathname` below `prefix`. */
export function withLinks({ dirs, files }: Listing, pathname: string, prefix: string, { names }: ListOptions) {
  const directory = names?.includes(path.basename(pathname)) ? path.posix.join(pathname, '..') : pathname;
  const linked = (entry: Entry) => ({
    // encodeURI does not escape these two, which would end the path.
    href: encodeURI(path.posix.join(prefix, directory, entry.name)).replace(/[#?]/g, encodeURIComponent),
    ...entry,
  });
  return { dirs: dirs.map(linked), files: files.map(linked) };
}

/** The totals for `top` and all subdirectories that the site serves. Closes `top`. */
async function extendedInformation(top: Directory): Promise<ExtendedInformation> {
  const totals: ExtendedInformation = {
    totalSize: 0,
    fileCount: 0,
    totalFileCount: 0,
    folderCount: 0,
    totalFolderCount: 0,
    lastModified: 0,
  };
  // Links to parent directories must not cause endless recursion.
  const seen = new Set<string>();
  const count = async (folder: Directory): Promise<void> => {
    const names: string[] = [];
    try {
      await forEachParallel(await folder.entries(), async (entry) => {
        const stats = await folder.stat(entry);
        if (stats.isDirectory()) {
          totals.totalFolderCount += 1;
          if (folder === top) totals.folderCount += 1;
          const identity = `${stats.dev}:${stats.ino}`;
          if (!seen.has(identity)) names.push(entry.name);
          seen.add(identity);
        } else {
          totals.totalSize += stats.size;
          totals.totalFileCount += 1;
          if (folder === top) totals.fileCount += 1;
          totals.lastModified = Math.max(totals.lastModified, stats.mtimeMs);
        }
      });
      // Sequentially: the number of open descriptors is limited by the depth of the tree.
      for (const name of names) {
        const below = await folder.open(name).catch(() => undefined);
        if (below !== undefined) await count(below).catch(() => {});
      }
    } finally {
      await folder.close();
    }
  };
  await count(top);
  return totals;
}

/** Calls `visit` for each item, with limited concurrency. Errors are ignored. */
async function forEachParallel<T>(items: T[], visit: (item: T) => Promise<void>): Promise<void> {
  const next = items.values();
  const worker = async () => {
    for (const item of next) await visit(item).catch(() => {});
  };
  await Promise.all(Array.from({ length: Math.min(CONCURRENCY, items.length) }, worker));
}

function byName(a: Entry, b: Entry): number {
  return a.name.localeCompare(b.name);
}
