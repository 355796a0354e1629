/**
 * String functions that behave like those of Rust; JavaScript's define white space differently.
 *
 * Loops instead of regular expressions: `/\s+$/` takes quadratic time for a header of spaces.
 */

/** The code points with the Unicode property White_Space below U+0100. */
const WHITE = new Set([0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x20, 0x85, 0xa0]);

/** As `str::trim` of Rust, for latin1 text. */
export function trim(text: string): string {
  return cut(text, (code) => WHITE.has(code));
}

/** Removes these characters at both ends. */
export function trimOf(text: string, characters: string): string {
  return cut(text, (code) => characters.includes(String.fromCharCode(code)));
}

/** Removes these characters at the start. */
export function trimStartOf(text: string, characters: string): string {
  let start = 0;
  while (start < text.length && characters.includes(text[start] as string)) start += 1;
  return text.slice(start);
}

/** The text before and after the first `separator`; `undefined` without one. */
export function splitOnce(text: string, separator: string): [string, string] | undefined {
  const at = text.indexOf(separator);
  return at < 0 ? undefined : [text.slice(0, at), text.slice(at + separator.length)];
}

/** The text after the last `separator`, or the whole text. */
export function afterLast(text: string, separator: string): string {
  return text.slice(text.lastIndexOf(separator) + 1);
}

/** ASCII case-insensitive comparison. `toLowerCase` maps some non-ASCII letters to ASCII. */
export function sameWord(text: string, word: string): boolean {
  return text.length === word.length && lowerCase(text) === word;
}

/** Converts ASCII letters to lower case. */
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
