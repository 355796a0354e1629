/** Listings of directories, as JSON or as the HTML that a function of the application makes of them. */
import type { Stats } from 'node:fs';
import path from 'node:path';

import type { Directory } from './directory.js';

/** What is in a directory, counted through all directories below. */
export interface ExtendedInformation {
  /** Files right in it. */
  fileCount: number;
  totalFileCount: number;
  /** Directories right in it. */
  folderCount: number;
  totalFolderCount: number;
  /** Bytes of all files. */
  totalSize: number;
  /** The latest modification of a file, in milliseconds since 1970; 0 without files. */
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
  /** Names that stand for the list of the directory they are asked for in; `'/'` is a path with its slash. Default none. */
  names?: string[];
  /** Count what is in directories, to the bottom. Costs a walk through all of it. Default false. */
  extendedFolderInfo?: boolean;
  /** Names alone, or each with its `fs.Stats`. Default `'names'`. */
  jsonFormat?: 'names' | 'extended';
}

export interface ListOptionsJsonFormat extends ListOptions {
  /** Default `'json'`; `?format=` in the URL has precedence. */
  format?: 'json';
  /** Needed for `?format=html`. */
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

/** How many entries are looked at at once. */
const AT_ONCE = 32;

/** True for a path that is not a file but stands for a list. */
export function isListName(pathname: string, { names }: ListOptions): boolean {
  return (
    names !== undefined && (names.includes(path.basename(pathname)) || (names.includes('/') && pathname.endsWith('/')))
  );
}

/** What is in `directory`, sorted by name. Entries that vanish meanwhile or cannot be looked at are left out. */
export async function listDirectory(directory: Directory, options: ListOptions): Promise<Listing> {
  const listing: Listing = { dirs: [], files: [] };
  await inTurn(await directory.entries(), async (entry) => {
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

/** The listing as the JSON format has it. */
export function asJson({ dirs, files }: Listing, { jsonFormat }: ListOptions): unknown {
  if (jsonFormat === 'extended') return { dirs, files };
  const names = (entries: Entry[]) => entries.map(({ name }) => name);
  return { dirs: names(dirs), files: names(files) };
}

/** The listing as `render` gets it: with links, for the request of `pathname` below `prefix`. */
export function withLinks({ dirs, files }: Listing, pathname: string, prefix: string, { names }: ListOptions) {
  const directory = names?.includes(path.basename(pathname)) ? path.posix.join(pathname, '..') : pathname;
  const linked = (entry: Entry) => ({
    // encodeURI leaves these two as they are, and a link would end there.
    href: encodeURI(path.posix.join(prefix, directory, entry.name)).replace(/[#?]/g, encodeURIComponent),
    ...entry,
  });
  return { dirs: dirs.map(linked), files: files.map(linked) };
}

/** Counts through `top` and all directories below, as far as the site serves them, and closes it. */
async function extendedInformation(top: Directory): Promise<ExtendedInformation> {
  const sum: ExtendedInformation = {
    totalSize: 0,
    fileCount: 0,
    totalFileCount: 0,
    folderCount: 0,
    totalFolderCount: 0,
    lastModified: 0,
  };
  // Links that lead back up would make it endless.
  const seen = new Set<string>();
  const count = async (folder: Directory): Promise<void> => {
    const names: string[] = [];
    try {
      await inTurn(await folder.entries(), async (entry) => {
        const stats = await folder.stat(entry);
        if (stats.isDirectory()) {
          sum.totalFolderCount += 1;
          if (folder === top) sum.folderCount += 1;
          const identity = `${stats.dev}:${stats.ino}`;
          if (!seen.has(identity)) names.push(entry.name);
          seen.add(identity);
        } else {
          sum.totalSize += stats.size;
          sum.totalFileCount += 1;
          if (folder === top) sum.fileCount += 1;
          sum.lastModified = Math.max(sum.lastModified, stats.mtimeMs);
        }
      });
      // One after another: no more descriptors than the tree is deep.
      for (const name of names) {
        const below = await folder.open(name).catch(() => undefined);
        if (below !== undefined) await count(below).catch(() => {});
      }
    } finally {
      await folder.close();
    }
  };
  await count(top);
  return sum;
}

/** Runs `look` for all, a few at a time; one that fails is passed over. */
async function inTurn<T>(items: T[], look: (item: T) => Promise<void>): Promise<void> {
  const next = items.values();
  const worker = async () => {
    for (const item of next) await look(item).catch(() => {});
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, worker));
}

function byName(a: Entry, b: Entry): number {
  return a.name.localeCompare(b.name);
}
