/**
 * Cutting text as the Rust modules do, where JavaScript's own methods have other ideas of what is blank.
 *
 * Loops instead of patterns: `/\s+$/` takes quadratic time for a header of blanks.
 */

/** Code points without which a line break or a blank would be left of a header: Unicode's White_Space below U+0100. */
const WHITE = new Set([0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x20, 0x85, 0xa0]);

/** Without white space at both ends, as Rust's `str::trim` for what a header can hold (latin1). */
export function trim(text: string): string {
  return cut(text, (code) => WHITE.has(code));
}

/** Without these characters at both ends. */
export function trimOf(text: string, characters: string): string {
  return cut(text, (code) => characters.includes(String.fromCharCode(code)));
}

/** Without these characters at the beginning. */
export function trimStartOf(text: string, characters: string): string {
  let start = 0;
  while (start < text.length && characters.includes(text[start] as string)) start += 1;
  return text.slice(start);
}

/** What stands before and after the first `separator`; `undefined` without one. */
export function splitOnce(text: string, separator: string): [string, string] | undefined {
  const at = text.indexOf(separator);
  return at < 0 ? undefined : [text.slice(0, at), text.slice(at + separator.length)];
}

/** What follows the last `separator`, or all of it. */
export function afterLast(text: string, separator: string): string {
  return text.slice(text.lastIndexOf(separator) + 1);
}

/** The same letters in ASCII, in any case. `toLowerCase` would let letters of other alphabets pass for these. */
export function sameWord(text: string, word: string): boolean {
  return text.length === word.length && lowerCase(text) === word;
}

/** Lower case for the letters of ASCII alone. */
export function lowerCase(text: string): string {
  return text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

function cut(text: string, isBlank: (code: number) => boolean): string {
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text.charCodeAt(start))) start += 1;
  while (end > start && isBlank(text.charCodeAt(end - 1))) end -= 1;
  return text.slice(start, end);
}
