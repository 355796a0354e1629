/**
 * A root directory, below which files are opened. The counterpart of `crates/core/src/fs/root.rs`; a test compares the two.
 *
 * If links must stay below the root, each path segment is checked before the file is opened. Unlike with `openat2(2)`, a user
 * that can replace directories below the root by links can race the check: on other platforms than Linux that user is trusted.
 */
import { statSync } from 'node:fs';
import { lstat, readlink, stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';

import { failure } from '../util/errors.js';
import { CanonicalNames, join } from './canonical-name.js';
import { close, NO_FOLLOW, type OpenFile, openError, openRegular } from './open-file.js';
import { MAX_PATH } from './path.js';

/** Symbolic links below the root: may lead anywhere, must stay below the root, or are refused. */
export type Symlinks = 'follow' | 'beneath' | 'deny';

/**
 * The result of a lookup. `'missing'`: also if a parent is not a directory, and for anything but a file or directory.
 * `'refused'`: a loop of links, or a link that is not allowed.
 */
export type Lookup =
  | { kind: 'file'; file: OpenFile }
  | { kind: 'directory' | 'missing' | 'too-long' | 'refused' }
  /** Permission denied: for the file, or, if `fileExists` is false, for a directory on the path. */
  | { kind: 'denied'; fileExists: boolean; error: Error };

/** The maximum number of links in a path, path_resolution(7). */
const MAX_LINKS = 40;

export class Root {
  /** The path that was passed to the constructor. */
  readonly path: string;
  readonly #symlinks: Symlinks;
  readonly #names: CanonicalNames;

  /** @param path An absolute path of a directory, which need not exist yet. */
  constructor(path: string, symlinks: Symlinks) {
    const wrong = (message: string) =>
      Object.assign(failure('ERR_ZEROSEND_INVALID_ARGUMENT', `${message} '${path}'`), { path });
    if (!isAbsolute(path)) {
      throw wrong('root is a relative path: use an absolute path');
    }
    if (existsAsNonDirectory(path)) throw wrong('root is not a directory: use a directory');
    this.path = path;
    this.#symlinks = symlinks;
    this.#names = new CanonicalNames(path);
  }

  /** Opens `relative` (checked by ./path.ts, empty for the root itself). */
  async open(relative: string): Promise<Lookup> {
    const full = join(this.path, relative);
    let path = `${this.path}/${relative}`;
    let resolved = false;
    try {
      if (this.#symlinks !== 'follow') {
        // PATH_MAX includes the trailing NUL.
        if (Buffer.byteLength(relative) >= MAX_PATH) return { kind: 'too-long' };
        const target = await this.#resolve(relative);
        if (target === undefined) return { kind: 'refused' };
        path = target;
      }
      resolved = true;
      const opened = await openRegular(path, this.#symlinks === 'follow' || relative === '' ? 0 : NO_FOLLOW);
      const found: Lookup =
        opened === 'directory'
          ? { kind: 'directory' }
          : opened === 'not regular'
            ? { kind: 'missing' }
            : { kind: 'file', file: opened };
      return await this.#checked(found, relative);
    } catch (error) {
      return await this.#checked(await classify(error, full, resolved ? path : undefined), relative);
    }
  }

  async #checked(found: Lookup, relative: string): Promise<Lookup> {
    const exists = found.kind === 'file' || found.kind === 'directory' || (found.kind === 'denied' && found.fileExists);
    if (!exists || (await this.#names.isCanonical(relative))) return found;
    if (found.kind === 'file') close(found.file.handle);
    return { kind: 'missing' };
  }

  /** The path of `relative` without links below the root; `undefined` if a link is not allowed. */
  async #resolve(relative: string): Promise<string | undefined> {
    const names = relative.split('/').reverse();
    const path: string[] = [];
    let links = 0;
    let isDirectory = true;
    for (let name = names.pop(); name !== undefined; name = names.pop()) {
      // A file cannot be followed by a segment, not even an empty one.
      if (!isDirectory) throw Object.assign(new Error('not a directory'), { code: 'ENOTDIR' });
      if (name === '' || name === '.') continue;
      if (name === '..') {
        if (path.pop() === undefined) return undefined;
        continue;
      }
      const stats = await lstat(join(this.path, [...path, name].join('/')));
      if (stats.isSymbolicLink()) {
        links += 1;
        if (this.#symlinks === 'deny' || links > MAX_LINKS) return undefined;
        const target = await readlink(join(this.path, [...path, name].join('/')));
        if (leaves(target)) return undefined;
        names.push(...target.split(SEPARATOR).reverse());
        continue;
      }
      isDirectory = stats.isDirectory();
      path.push(name);
    }
    return join(this.path, path.join('/'));
  }
}

const SEPARATOR = process.platform === 'win32' ? /[/\\]/ : '/';

/** Absolute links leave the root, as in openat2(2). On Windows a colon marks a drive or a stream of a file. */
function leaves(target: string): boolean {
  return isAbsolute(target) || (process.platform === 'win32' && target.includes(':'));
}

function existsAsNonDirectory(path: string): boolean {
  try {
    return !statSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** @param path The path that could not be opened; `undefined` if it could not be resolved. */
async function classify(error: unknown, full: string, path: string | undefined): Promise<Lookup> {
  const { code } = error as NodeJS.ErrnoException;
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
    // open(2): a socket, or a device without a driver. macOS and the BSDs return EOPNOTSUPP for a socket.
    case 'ENXIO':
    case 'ENODEV':
    case 'EOPNOTSUPP':
      return { kind: 'missing' };
    case 'ENAMETOOLONG':
      return { kind: 'too-long' };
    case 'ELOOP':
    // open(2) on FreeBSD: a link with O_NOFOLLOW.
    case 'EMLINK':
      return { kind: 'refused' };
    case 'EISDIR':
      return { kind: 'directory' };
    case 'EPERM':
      // Windows; macOS for files protected by its privacy settings.
      if (process.platform === 'linux') throw openError(error, full);
      break;
    case 'EACCES':
      break;
    default:
      throw openError(error, full);
  }
  const stats = path === undefined ? undefined : await stat(path).catch(() => undefined);
  // A directory without read permission is still a directory.
  if (stats?.isDirectory()) return { kind: 'directory' };
  return { kind: 'denied', fileExists: stats !== undefined, error: openError(error, full) };
}
