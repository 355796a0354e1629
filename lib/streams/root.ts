/**
 * A directory below which paths are opened. The counterpart of `crates/core/src/fs/root.rs`; the comparison test holds
 * the two together.
 *
 * Where links must stay below the root, names are walked one by one and looked at before the file is opened. Unlike
 * `openat2(2)` this can be raced by somebody who may replace directories below the root by links at that moment; who may do
 * that is trusted elsewhere than on Linux.
 */
import { statSync } from 'node:fs';
import { lstat, readlink, stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';

import { failure } from '../util/errors.js';
import { close, NO_FOLLOW, type OpenFile, openError, openRegular } from './open-file.js';
import { MAX_PATH } from './path.js';
import { join, Spelling } from './spelling.js';

/** What symbolic links below the root may do: lead anywhere, lead anywhere below the root, or not exist on the way. */
export type Symlinks = 'follow' | 'beneath' | 'deny';

/**
 * What was found under a name. Missing is also what is no directory on the way, and what is neither a file nor a directory.
 * Refused: links go round in a circle, or the policy forbids one.
 */
export type Lookup =
  | { kind: 'file'; file: OpenFile }
  | { kind: 'directory' | 'missing' | 'too-long' | 'refused' }
  /** Permission denied. `fileExists` tells an unreadable file from an unreadable way to it. */
  | { kind: 'denied'; fileExists: boolean; error: Error };

/** Links followed in one walk at most, path_resolution(7). */
const MOST_LINKS = 40;

export class Root {
  /** Its path as given. */
  readonly path: string;
  readonly #symlinks: Symlinks;
  readonly #spelling: Spelling;

  /** A root at an absolute path, which need not exist yet but must not be something else than a directory. */
  constructor(path: string, symlinks: Symlinks) {
    const wrong = (message: string) =>
      Object.assign(failure('ERR_ZEROSEND_INVALID_ARGUMENT', `${message} '${path}'`), { path });
    if (!isAbsolute(path)) {
      throw wrong('root is a relative path: use an absolute path');
    }
    if (isNoDirectory(path)) throw wrong('root is not a directory: use a directory');
    this.path = path;
    this.#symlinks = symlinks;
    this.#spelling = new Spelling(path);
  }

  /** Opens `relative` (checked by ./path.ts, empty for the root itself). */
  async open(relative: string): Promise<Lookup> {
    const full = join(this.path, relative);
    let path = `${this.path}/${relative}`;
    let walked = false;
    try {
      if (this.#symlinks !== 'follow') {
        // PATH_MAX counts the NUL at the end too.
        if (Buffer.byteLength(relative) >= MAX_PATH) return { kind: 'too-long' };
        const target = await this.#walk(relative);
        if (target === undefined) return { kind: 'refused' };
        path = target;
      }
      walked = true;
      const opened = await openRegular(path, this.#symlinks === 'follow' || relative === '' ? 0 : NO_FOLLOW);
      const found: Lookup =
        opened === 'directory'
          ? { kind: 'directory' }
          : opened === 'not regular'
            ? { kind: 'missing' }
            : { kind: 'file', file: opened };
      return await this.#checked(found, relative);
    } catch (error) {
      return await this.#checked(await classify(error, full, walked ? path : undefined), relative);
    }
  }

  async #checked(found: Lookup, relative: string): Promise<Lookup> {
    const exists = found.kind === 'file' || found.kind === 'directory' || (found.kind === 'denied' && found.fileExists);
    if (!exists || (await this.#spelling.isRight(relative))) return found;
    if (found.kind === 'file') close(found.file.handle);
    return { kind: 'missing' };
  }

  /** The path that `relative` leads to, without links on the way below the root; `undefined` when the policy forbids one. */
  async #walk(relative: string): Promise<string | undefined> {
    const names = relative.split('/').reverse();
    const path: string[] = [];
    let links = 0;
    let isDirectory = true;
    for (let name = names.pop(); name !== undefined; name = names.pop()) {
      // What follows a file's name is not there, be it nothing but a slash.
      if (!isDirectory) throw Object.assign(new Error('not a directory'), { code: 'ENOTDIR' });
      if (name === '' || name === '.') continue;
      if (name === '..') {
        if (path.pop() === undefined) return undefined;
        continue;
      }
      const stats = await lstat(join(this.path, [...path, name].join('/')));
      if (stats.isSymbolicLink()) {
        links += 1;
        if (this.#symlinks === 'deny' || links > MOST_LINKS) return undefined;
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

/** Absolute links count as leaving the root, openat2(2). A colon is a drive of Windows, or a stream of a file. */
function leaves(target: string): boolean {
  return isAbsolute(target) || (process.platform === 'win32' && target.includes(':'));
}

function isNoDirectory(path: string): boolean {
  try {
    return !statSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** @param path what could not be opened; `undefined` when the way to it could not be walked. */
async function classify(error: unknown, full: string, path: string | undefined): Promise<Lookup> {
  const { code } = error as NodeJS.ErrnoException;
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
    // open(2): a socket, or a device without a driver. EOPNOTSUPP is what macOS and the BSDs say of a socket.
    case 'ENXIO':
    case 'ENODEV':
    case 'EOPNOTSUPP':
      return { kind: 'missing' };
    case 'ENAMETOOLONG':
      return { kind: 'too-long' };
    case 'ELOOP':
    // What FreeBSD says of a link where O_NOFOLLOW is given, open(2).
    case 'EMLINK':
      return { kind: 'refused' };
    case 'EISDIR':
      return { kind: 'directory' };
    case 'EPERM':
      // Windows, and macOS for what its privacy settings protect.
      if (process.platform === 'linux') throw openError(error, full);
      break;
    case 'EACCES':
      break;
    default:
      throw openError(error, full);
  }
  const stats = path === undefined ? undefined : await stat(path).catch(() => undefined);
  // A directory one may pass but not list is a directory all the same.
  if (stats?.isDirectory()) return { kind: 'directory' };
  return { kind: 'denied', fileExists: stats !== undefined, error: openError(error, full) };
}
