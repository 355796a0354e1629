/**
 * Reads directories for listings. Entries are accessed through open directories, not by path: a directory may be replaced by a
 * link at any time.
 *
 * On Linux, a directory is a descriptor that the engine has opened under the rules of the site. Other platforms have no equivalent:
 * there, a user with permission to create links below the root can race the check.
 */
import { close as closeFd, type Dirent, fstat, type Stats } from 'node:fs';
import { lstat, readdir, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

import { engine, requestValue } from '../runtime/engine.js';
import { IS_LINUX } from '../runtime/platform.js';
import type { Site } from './site.js';

export interface Directory {
  /** The entries, without those that the site does not serve because of their names. */
  entries(): Promise<Dirent[]>;
  /** The stats of an entry, or of the target of a link. Rejects if the site does not follow the link. */
  stat(entry: Dirent): Promise<Stats>;
  /** Opens a subdirectory. Rejects if it is a link that the site does not follow. */
  open(name: string): Promise<Directory>;
  close(): Promise<void>;
}

/** Opens the directory at `relative` below the root `rootIndex` of `site`. */
export async function openDirectory(site: Site, rootIndex: number, relative: string): Promise<Directory> {
  if (IS_LINUX) return await OpenedDirectory.open(site, rootIndex, relative);
  const root = site.roots[rootIndex] as string;
  return new NamedDirectory(site, root, await checkedPath(site, root, path.join(root, relative)));
}

const closeAsync = promisify(closeFd);
const fstatAsync = promisify(fstat);

class OpenedDirectory implements Directory {
  readonly #site: Site;
  readonly #rootIndex: number;
  readonly #relative: string;
  readonly #fd: number;

  private constructor(site: Site, rootIndex: number, relative: string, fd: number) {
    this.#site = site;
    this.#rootIndex = rootIndex;
    this.#relative = relative;
    this.#fd = fd;
  }

  static async open(site: Site, rootIndex: number, relative: string): Promise<OpenedDirectory> {
    return new OpenedDirectory(site, rootIndex, relative, await openEntry(site, rootIndex, relative, true));
  }

  async entries(): Promise<Dirent[]> {
    return visible(this.#site, await readdir(this.#path(''), { withFileTypes: true }));
  }

  async stat({ name }: Dirent): Promise<Stats> {
    const { symlinks = 'follow' } = this.#site.options;
    if (symlinks === 'follow') return await stat(this.#path(name));
    // Does not follow a link; the engine opens its target.
    const stats = await lstat(this.#path(name));
    if (!stats.isSymbolicLink()) return stats;
    const fd = await openEntry(this.#site, this.#rootIndex, this.#below(name), false);
    return await fstatAsync(fd).finally(() => closeAsync(fd));
  }

  async open(name: string): Promise<Directory> {
    return await OpenedDirectory.open(this.#site, this.#rootIndex, this.#below(name));
  }

  async close(): Promise<void> {
    await closeAsync(this.#fd);
  }

  #below(name: string): string {
    return this.#relative === '' ? name : `${this.#relative}/${name}`;
  }

  /** proc_pid_fd(5): the magic link refers to the open directory. */
  #path(name: string): string {
    return `/proc/self/fd/${this.#fd}/${name}`;
  }
}

function openEntry(site: Site, rootIndex: number, relative: string, isDirectory: boolean): Promise<number> {
  return requestValue((number) => engine().openEntry(number, site.handle, relative, rootIndex, isDirectory));
}

class NamedDirectory implements Directory {
  readonly #site: Site;
  readonly #root: string;
  readonly #path: string;

  constructor(site: Site, root: string, directory: string) {
    this.#site = site;
    this.#root = root;
    this.#path = directory;
  }

  async entries(): Promise<Dirent[]> {
    return visible(this.#site, await readdir(this.#path, { withFileTypes: true }));
  }

  async stat({ name }: Dirent): Promise<Stats> {
    return await stat(await checkedPath(this.#site, this.#root, path.join(this.#path, name)));
  }

  async open(name: string): Promise<Directory> {
    const directory = await checkedPath(this.#site, this.#root, path.join(this.#path, name));
    return new NamedDirectory(this.#site, this.#root, directory);
  }

  async close(): Promise<void> {}
}

/** The real path of `file`, if the site follows the links in it. Throws if it does not. */
async function checkedPath(site: Site, root: string, file: string): Promise<string> {
  const { symlinks = 'follow' } = site.options;
  if (symlinks === 'follow') return file;
  const [realRoot, real] = await Promise.all([realpath(root), realpath(file)]);
  const below = path.relative(root, file);
  const isAsNamed = real === path.join(realRoot, below);
  const isBelow = real === realRoot || real.startsWith(path.join(realRoot, '/'));
  if (isAsNamed || (symlinks === 'beneath' && isBelow)) return real;
  throw new Error(`'${file}' contains a symbolic link that is not followed`);
}

function visible(site: Site, entries: Dirent[]): Dirent[] {
  const { dotfiles = 'allow' } = site.options;
  return dotfiles === 'allow' ? entries : entries.filter(({ name }) => !name.startsWith('.'));
}
