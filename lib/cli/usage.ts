/** What all commands share: flags that are wrong, and numbers in them. */
import { type ParseArgsConfig, parseArgs } from 'node:util';

/** Something was asked wrongly: one line to the standard error, exit code 2. */
export class UsageError extends Error {}

/** As `parseArgs`, with errors of one line. */
export function parse<T extends ParseArgsConfig>(config: T): ReturnType<typeof parseArgs<T>> {
  try {
    return parseArgs(config);
  } catch (error) {
    // Node's own message goes on to tell of `--`, which is of no use here.
    throw new UsageError(((error as Error).message.split('. ')[0] ?? '').replace(/\.$/, ''));
  }
}

/** An integer that a flag has. */
export function integer(flag: string, value: string | undefined, min: number, max: number): number | undefined {
  if (value === undefined) return undefined;
  const number = Number(value);
  if (/^\d+$/.test(value) && number >= min && number <= max) return number;
  throw new UsageError(`invalid ${flag} '${value}': use an integer from ${min} to ${max}`);
}

/** Permission bits that a flag has, in octal. */
export function permissions(flag: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (/^0?[0-7]{3}$/.test(value)) return Number.parseInt(value, 8);
  throw new UsageError(`invalid ${flag} '${value}': use three octal digits, such as 600`);
}

/** One of several words that a flag has. */
export function word<T extends string>(flag: string, value: string | undefined, words: readonly T[]): T | undefined {
  if (value === undefined || words.includes(value as T)) return value as T | undefined;
  throw new UsageError(`invalid ${flag} '${value}': use one of ${words.join(', ')}`);
}
