/** Counts, faults, and the table at the end. */

interface Found {
  count: number;
  first: string;
}

const started = performance.now();

/** Counts by area and event, and the faults. */
export class Report {
  readonly #counts = new Map<string, Map<string, number>>();
  readonly #faults = new Map<string, Found>();
  readonly seed: number;
  /** Time of the last count, for the watchdog. */
  lastProgress = performance.now();

  constructor(seed: number) {
    this.seed = seed;
  }

  count(area: string, event: string, by = 1): void {
    this.lastProgress = performance.now();
    let events = this.#counts.get(area);
    if (events === undefined) {
      events = new Map();
      this.#counts.set(area, events);
    }
    events.set(event, (events.get(event) ?? 0) + by);
  }

  /** Reports a fault. The first few of each kind are printed at once. */
  fault(area: string, what: string, detail: string): void {
    const key = `${area}: ${what}`;
    const known = this.#faults.get(key);
    const count = (known?.count ?? 0) + 1;
    this.#faults.set(key, { count, first: known?.first ?? detail });
    if (count <= 3) this.log(`FAULT ${key}\n      ${detail}`);
  }

  log(text: string): void {
    console.log(`[${((performance.now() - started) / 1000).toFixed(1).padStart(7)}s] ${text}`);
  }

  get faultCount(): number {
    let total = 0;
    for (const { count } of this.#faults.values()) total += count;
    return total;
  }

  print(): void {
    console.log('\n| area | event | count |\n|---|---|---|');
    for (const [area, events] of [...this.#counts].sort(([a], [b]) => a.localeCompare(b))) {
      for (const [event, count] of [...events].sort(([a], [b]) => a.localeCompare(b))) {
        console.log(`| ${area} | ${event} | ${count.toLocaleString('en')} |`);
      }
    }
    if (this.#faults.size > 0) {
      console.log('\n| fault | count | first |\n|---|---|---|');
      for (const [key, { count, first }] of this.#faults) console.log(`| ${key} | ${count} | ${first} |`);
    }
    console.log(
      `\n${this.#faults.size === 0 ? 'nothing found' : `${this.#faults.size} kinds of faults`}; --seed ${this.seed}`,
    );
  }
}

/** Time spans in which errors are expected, for a known reason. */
export class Trouble {
  #open = 0;
  #last = Number.NEGATIVE_INFINITY;

  begin(): void {
    this.#open += 1;
  }

  end(): void {
    this.#open -= 1;
    this.#last = performance.now();
  }

  /** Whether errors were expected at some time since `grace` milliseconds before `time`. */
  since(time: number, grace = 0): boolean {
    return this.#open > 0 || this.#last >= time - grace;
  }

  get active(): boolean {
    return this.#open > 0;
  }
}
