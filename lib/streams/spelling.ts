/**
 * Whether a file has the name it was asked for by. There is no counterpart in Rust, since on Linux nothing else is found.
 *
 * The usual file systems of macOS and Windows find a file by other spellings too: in capitals, in another form of Unicode,
 * by its short name (`GIT~1`). A guard that has seen one spelling (`allowedPath`, `dotfiles`, a route) must not be passed by
 * another, and an app must find here what it will find on the server: a name that is spelt otherwise is missing.
 */
import { lstat, readdir, realpath } from 'node:fs/promises';
import { basename, sep } from 'node:path';

export class Spelling {
  readonly #root: string;
  /** Where the root led to when it was last asked. */
  #directory: string | undefined;

  constructor(root: string) {
    this.#root = root;
  }

  /** `relative` is to be checked by ./path.ts, and to lead to something below the root. */
  async isRight(relative: string): Promise<boolean> {
    if (relative === '') return true;
    try {
      const file = await realpath(join(this.#root, relative));
      // Nearly always: no link is on the way. A directory that the root led to before proves as much of the names.
      if (file === this.#below(relative)) return true;
      this.#directory = await realpath(this.#root);
      if (file === this.#below(relative)) return true;
    } catch {
      // Not every file system of Windows can tell (RAM disks, some network drives).
    }
    let parent = this.#root;
    for (const name of relative.split('/')) {
      const path = join(parent, name);
      if (!(await isSpeltHere(parent, name, path))) return false;
      parent = path;
    }
    return true;
  }

  #below(relative: string): string | undefined {
    return this.#directory === undefined ? undefined : join(this.#directory, relative).replaceAll('/', sep);
  }
}

async function isSpeltHere(parent: string, name: string, path: string): Promise<boolean> {
  try {
    if (!(await lstat(path)).isSymbolicLink()) return basename(await realpath(path)) === name;
  } catch {
    // As above.
  }
  // What a link is called itself only its directory knows.
  return await readdir(parent).then(
    (names) => names.includes(name),
    () => false,
  );
}

/** Not `path.join`, which takes `..` in a root for what it says and not for what it leads to. */
export function join(directory: string, relative: string): string {
  return directory.endsWith('/') || directory.endsWith(sep) ? directory + relative : `${directory}/${relative}`;
}
