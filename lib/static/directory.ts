/**
 * Directories below a root, as lists look at them: every step goes through what was opened and checked before, never by a
 * path once more, for a directory may be replaced by a link meanwhile.
 *
 * On Linux a directory is a descriptor that the engine has opened under the site's rules. Other systems have no such
 * descriptor, and a user who may create links below the root can win that race.
 */
import { close as closeFd, type Dirent, fstat, type Stats } from 'node:fs';
import { lstat, readdir, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

import { engine, requestValue } from '../runtime/engine.js';
import { IS_LINUX } from '../runtime/platform.js';
import type { Site } from './site.js';

export interface Directory {
  /** What is in it, but for what the site does not serve because of its name. */
  entries(): Promise<Dirent[]>;
  /** Of an entry, of what a link leads to; fails where the site does not follow that link. */
  stat(entry: Dirent): Promise<Stats>;
  /** A directory in it; fails where the site does not follow that link. */
  open(name: string): Promise<Directory>;
  close(): Promise<void>;
}

/** Opens the directory at `relative` below the root `rootIndex` of `site`. */
export async function openDirectory(site: Site, rootIndex: number, relative: string): Promise<Directory> {
  if (IS_LINUX) return await OpenedDirectory.open(site, rootIndex, relative);
  const root = site.roots[rootIndex] as string;
  return new NamedDirectory(site, root, await checkedPath(site, root, path.join(root, relative)));
}

const closeLater = promisify(closeFd);
const statLater = promisify(fstat);

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
    return served(this.#site, await readdir(this.#path(''), { withFileTypes: true }));
  }

  async stat({ name }: Dirent): Promise<Stats> {
    const { symlinks = 'follow' } = this.#site.options;
    if (symlinks === 'follow') return await stat(this.#path(name));
    // The entry itself, in one step; a link is another step, which is the engine's.
    const stats = await lstat(this.#path(name));
    if (!stats.isSymbolicLink()) return stats;
    const fd = await openEntry(this.#site, this.#rootIndex, this.#below(name), false);
    return await statLater(fd).finally(() => closeLater(fd));
  }

  async open(name: string): Promise<Directory> {
    return await OpenedDirectory.open(this.#site, this.#rootIndex, this.#below(name));
  }

  async close(): Promise<void> {
    await closeLater(this.#fd);
  }

  #below(name: string): string {
    return this.#relative === '' ? name : `${this.#relative}/${name}`;
  }

  /** proc_pid_fd(5): a magic link leads to the open directory itself. */
  #path(name: string): string {
    return `/proc/self/fd/${this.#fd}/${name}`;
  }
}

function openEntry(site: Site, rootIndex: number, relative: string, isDirectory: boolean): Promise<number> {
  return requestValue((number) => engine().openEntry(number, site.token, relative, rootIndex, isDirectory));
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
    return served(this.#site, await readdir(this.#path, { withFileTypes: true }));
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

/** `file`, which is below `root` by its name, if the site follows the links on the way to it. */
async function checkedPath(site: Site, root: string, file: string): Promise<string> {
  const { symlinks = 'follow' } = site.options;
  if (symlinks === 'follow') return file;
  const [realRoot, real] = await Promise.all([realpath(root), realpath(file)]);
  const below = path.relative(root, file);
  const isAsNamed = real === path.join(realRoot, below);
  const isBelow = real === realRoot || real.startsWith(path.join(realRoot, '/'));
  if (isAsNamed || (symlinks === 'beneath' && isBelow)) return real;
  throw new Error(`${file} leads over a symbolic link`);
}

function served(site: Site, entries: Dirent[]): Dirent[] {
  const { dotfiles = 'allow' } = site.options;
  return dotfiles === 'allow' ? entries : entries.filter(({ name }) => !name.startsWith('.'));
}
