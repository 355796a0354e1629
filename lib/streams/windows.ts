/**
 * Names under which Windows opens something else than the file of that name. There is no counterpart in Rust, since Linux
 * has no such names.
 *
 * See "Naming Files, Paths, and Namespaces" of the Win32 documentation.
 */

/** Devices, also with an extension: `nul.txt`. Blanks before the dot do not matter either. */
const DEVICE = /^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3]) *(?:\.|$)/i;

/** Why `relative` (checked by ./path.ts) must not be opened on Windows, in words; `undefined` when it may be. */
export function refusedOnWindows(relative: string): string | undefined {
  // A stream of the file before the colon (`a.txt::$DATA`), or another drive.
  if (relative.includes(':')) return 'colon in path';
  for (const segment of relative.split('/')) {
    // They are taken off: `a.txt.` is `a.txt`.
    if (segment.endsWith('.')) return 'segment of path ends in a dot';
    if (segment.endsWith(' ')) return 'segment of path ends in a blank';
    if (DEVICE.test(segment)) return 'device name in path';
  }
  return undefined;
}
