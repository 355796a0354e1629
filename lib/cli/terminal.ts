/** Output for terminals: bars, tables, sizes. */

const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
const SHADES = ['·', '░', '▒', '▓', '█'];

/** A bar of `width` cells, filled by `fraction` (0 to 1). */
export function bar(fraction: number, width: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, fraction)) * width * 8);
  return ('█'.repeat(eighths >> 3) + EIGHTHS[eighths & 7]).padEnd(width);
}

/** One shaded cell for each fraction (0 to 1). */
export function shades(fractions: readonly number[]): string {
  // The full and the empty shade mean exactly 1 and 0.
  const shade = (fraction: number) =>
    fraction >= 1 ? 4 : fraction <= 0 ? 0 : 1 + Math.min(2, Math.floor(fraction * 3));
  return fractions.map((fraction) => SHADES[shade(fraction)]).join('');
}

/** A table; the columns in `right` are right-aligned. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [at, cell] of row.entries()) widths[at] = Math.max(widths[at] ?? 0, cell.length);
  }
  const line = (row: readonly string[]) =>
    row
      .map((cell, at) => (right.includes(at) ? cell.padStart(widths[at] ?? 0) : cell.padEnd(widths[at] ?? 0)))
      .join('  ');
  return rows.map((row) => line(row).trimEnd()).join('\n');
}

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];

/** A size with its unit, such as `1.5 MiB`. */
export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = Number.isInteger(value) ? 0 : value < 10 ? 2 : value < 100 ? 1 : 0;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** A progress bar on standard error; draws nothing if that is not a terminal. */
export class ProgressLine {
  readonly #stream = process.stderr;
  #drawn = 0;

  draw(fraction: number, text: string): void {
    const now = Date.now();
    if (!this.#stream.isTTY || (now - this.#drawn < 50 && fraction < 1)) return;
    this.#drawn = now;
    const room = Math.max(10, (this.#stream.columns ?? 80) - 42);
    const cut = text.length > room ? `…${text.slice(1 - room)}` : text;
    this.#stream.write(`\r\x1b[K${bar(fraction, 30)} ${String(Math.floor(fraction * 100)).padStart(3)} %  ${cut}`);
  }

  clear(): void {
    if (this.#drawn > 0) this.#stream.write('\r\x1b[K');
    this.#drawn = 0;
  }
}
