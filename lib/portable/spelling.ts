/**
 * Whether a file has the name it was asked for by. There is no counterpart in Rust, since on Linux nothing else is found.
 *
 * The usual file systems of macOS and Windows find a file by other spellings too: in capitals, in another form of Unicode,
 * by its short name (`GIT~1`). A guard that has seen one spelling (`allowedPath`, `dotfiles`, a route) must not be passed by
 * another, and an app must find here what it will find on the server: a name that is spelt otherwise is missing.
 */
import { lstat, readdir, realpath } from 'node:fs/promises';
import { basename, sep } from 'node:path';

/** `relative` is to be checked by ./path.ts, and to lead to something below `root`. */
export async function isSpelt(root: string, relative: string): Promise<boolean> {
  if (relative === '') return true;
  try {
    const [directory, file] = await Promise.all([realpath(root), realpath(join(root, relative))]);
    // As long as no link is on the way, which is nearly always.
    if (file === join(directory, relative).replaceAll('/', sep)) return true;
  } catch {
    // Not every file system of Windows can tell (RAM disks, some network drives).
  }
  let parent = root;
  for (const name of relative.split('/')) {
    const path = join(parent, name);
    if (!(await isSpeltHere(parent, name, path))) return false;
    parent = path;
  }
  return true;
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
