// Order statistics.

export interface Summary {
  median: number;
  min: number;
  max: number;
  q1: number;
  q3: number;
}

/** Interpolates linearly. `fraction`: from 0 to 1. */
export function quantile(values: readonly number[], fraction: number): number {
  if (values.length === 0) return NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * fraction;
  const low = sorted[Math.floor(at)] as number;
  const high = sorted[Math.ceil(at)] as number;
  return low + (high - low) * (at - Math.floor(at));
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Null without values, because JSON has no NaN. */
export function summarize(values: readonly number[]): Summary | null {
  if (values.length === 0) return null;
  return {
    median: median(values),
    min: Math.min(...values),
    max: Math.max(...values),
    q1: quantile(values, 0.25),
    q3: quantile(values, 0.75),
  };
}

/** The median of the ratios within each round, so drift during a run affects both sides equally. */
export function pairedRatio(values: readonly number[], base: readonly number[]): number | null {
  if (values.length === 0 || values.length !== base.length) return null;
  return median(values.map((value, round) => value / (base[round] as number)));
}
