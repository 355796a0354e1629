/**
 * Names under which Windows does not open the file of that name. Not needed on Linux, and without a counterpart in Rust.
 *
 * See "Naming Files, Paths, and Namespaces" of the Win32 documentation.
 */

/** Device names, also with an extension (`nul.txt`) or spaces before the dot. */
const DEVICE = /^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3]) *(?:\.|$)/i;

/** The reason why `relative` (checked by ./path.ts) must not be opened on Windows; `undefined` if there is none. */
export function refusedOnWindows(relative: string): string | undefined {
  // An alternate data stream (`a.txt::$DATA`), or a drive.
  if (relative.includes(':')) return 'colon in path';
  for (const segment of relative.split('/')) {
    // Windows strips trailing dots and spaces: `a.txt.` opens `a.txt`.
    if (segment.endsWith('.')) return 'segment of path ends in a dot';
    if (segment.endsWith(' ')) return 'segment of path ends in a blank';
    if (DEVICE.test(segment)) return 'device name in path';
  }
  return undefined;
}
