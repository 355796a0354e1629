/**
 * Checks that a path has the exact name of the file it leads to. Not needed on Linux, and without a counterpart in Rust.
 *
 * The usual file systems of macOS and Windows also find a file by other names: in another case, in another Unicode
 * normalization, by its short name (`GIT~1`). Such a name must not bypass an access check for the exact name (`allowedPath`,
 * `dotfiles`, a route), and is treated as missing, as on a Linux server.
 */
import { lstat, readdir, realpath } from 'node:fs/promises';
import { basename, sep } from 'node:path';

export class CanonicalNames {
  readonly #root: string;
  /** The real path of the root when it was last resolved. */
  #directory: string | undefined;

  constructor(root: string) {
    this.#root = root;
  }

  /** Whether `relative` (checked by ./path.ts) is the exact name of an existing file or directory below the root. */
  async isCanonical(relative: string): Promise<boolean> {
    if (relative === '') return true;
    try {
      const file = await realpath(join(this.#root, relative));
      // The usual case: no symbolic link in the path. An outdated real path of the root proves the names below it, too.
      if (file === this.#below(relative)) return true;
      this.#directory = await realpath(this.#root);
      if (file === this.#below(relative)) return true;
    } catch {
      // Some file systems of Windows do not support realpath (RAM disks, some network drives).
    }
    let parent = this.#root;
    for (const name of relative.split('/')) {
      const path = join(parent, name);
      if (!(await isExactName(parent, name, path))) return false;
      parent = path;
    }
    return true;
  }

  #below(relative: string): string | undefined {
    return this.#directory === undefined ? undefined : join(this.#directory, relative).replaceAll('/', sep);
  }
}

async function isExactName(parent: string, name: string, path: string): Promise<boolean> {
  try {
    if (!(await lstat(path)).isSymbolicLink()) return basename(await realpath(path)) === name;
  } catch {
    // realpath is not supported: see above.
  }
  // The exact name of a symbolic link is only in its directory.
  return await readdir(parent).then(
    (names) => names.includes(name),
    () => false,
  );
}

/** Unlike `path.join`, does not resolve `..` lexically: in a root it can follow a symbolic link. */
export function join(directory: string, relative: string): string {
  return directory.endsWith('/') || directory.endsWith(sep) ? directory + relative : `${directory}/${relative}`;
}
