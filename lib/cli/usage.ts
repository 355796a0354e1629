/** Parsing of command line options. */
import { type ParseArgsConfig, parseArgs } from 'node:util';

/** Wrong usage: printed as one line on standard error, with exit code 2. */
export class UsageError extends Error {}

/** As `parseArgs`, with one-line errors. */
export function parse<T extends ParseArgsConfig>(config: T): ReturnType<typeof parseArgs<T>> {
  try {
    return parseArgs(config);
  } catch (error) {
    // The rest of Node's message explains `--`, which no command uses.
    throw new UsageError(((error as Error).message.split('. ')[0] ?? '').replace(/\.$/, ''));
  }
}

/** Parses the integer value of an option. */
export function integer(flag: string, value: string | undefined, min: number, max: number): number | undefined {
  if (value === undefined) return undefined;
  const number = Number(value);
  if (/^\d+$/.test(value) && number >= min && number <= max) return number;
  throw new UsageError(`invalid ${flag} '${value}': use an integer from ${min} to ${max}`);
}

/** Parses the value of an option as permission bits in octal. */
export function permissions(flag: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (/^0?[0-7]{3}$/.test(value)) return Number.parseInt(value, 8);
  throw new UsageError(`invalid ${flag} '${value}': use three octal digits, such as 600`);
}

/** Parses the value of an option that must be one of `words`. */
export function word<T extends string>(flag: string, value: string | undefined, words: readonly T[]): T | undefined {
  if (value === undefined || words.includes(value as T)) return value as T | undefined;
  throw new UsageError(`invalid ${flag} '${value}': use one of ${words.join(', ')}`);
}
