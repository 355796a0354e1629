/** Self-contained HTML pages with bar charts (SVG) and tables, in light and dark mode, for small screens and for print. */

export interface Bar {
  label: string;
  /** Values of the stacked segments, with the classes `series-0`, `series-1`, ... */
  segments: number[];
  /** The minimum and the maximum of the measurements. */
  spread?: readonly [number, number] | undefined;
  /** Text beside the bar. */
  note: string;
  /** Highlight the bar. */
  marked?: boolean | undefined;
}

export interface Chart {
  title: string;
  /** The unit of the values, shown below the title. */
  unit: string;
  /** Names of the series, if there are several. */
  legend?: string[] | undefined;
  bars: Bar[];
}

export function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

/** Labels and notes are HTML, not SVG, so that their font size does not change with the width of the bars. */
export function chart({ title, unit, legend, bars }: Chart): string {
  const max = Math.max(...bars.flatMap((bar) => [sum(bar.segments), bar.spread?.[1] ?? 0]), Number.MIN_VALUE);
  const at = (value: number) => ((100 * value) / max).toFixed(2);
  const rows = bars.map(({ label, segments, spread, note, marked }) => {
    let from = 0;
    const shapes = segments.map((value, series) => {
      const shape = `<rect class="series-${series}" x="${at(from)}" y="2" width="${at(value)}" height="12"/>`;
      from += value;
      return shape;
    });
    if (spread !== undefined && spread[1] > spread[0]) {
      const [low, high] = spread.map(at);
      shapes.push(
        `<path class="spread" d="M${low} 8H${high}M${low} 5V11M${high} 5V11" vector-effect="non-scaling-stroke"/>`,
      );
    }
    const drawn = `<svg viewBox="0 0 100 16" preserveAspectRatio="none" role="img" aria-label="${escaped(`${label}: ${note}`)}">${shapes.join('')}</svg>`;
    const mark = marked ? ' class="marked"' : '';
    return `<tr${mark}><th scope="row">${escaped(label)}</th><td class="bar">${drawn}</td><td class="note">${escaped(note)}</td></tr>`;
  });
  const names = (legend ?? []).map((name, series) => `<span><i class="series-${series}"></i>${escaped(name)}</span>`);
  const key = names.length > 0 ? `<p class="legend">${names.join(' ')}</p>` : '';
  return `<figure><figcaption>${escaped(title)} <small>${escaped(unit)}</small></figcaption>${key}<table class="chart">${rows.join('\n')}</table></figure>`;
}

/** A table of numbers, with labels in the first column. */
export function htmlTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (tag: string, row: readonly string[]) =>
    `<tr>${row.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join('')}</tr>`;
  return `<div class="wide"><table class="figures"><thead>${line('th', head)}</thead><tbody>${rows.map((row) => line('td', row)).join('\n')}</tbody></table></div>`;
}

export function page(title: string, body: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
${body}
</main>
</body>
</html>
`;
}

const sum = (values: readonly number[]) => values.reduce((all, value) => all + value, 0);

const STYLE = `
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d1d9e0; --paper: #fff;
  --a: #2563a8; --b: #8fb8de; --c: #d2913c; --mark: #b3541e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaef; --soft: #9aa5b1; --line: #3a424c; --paper: #14181d;
  --a: #6ea8e0; --b: #355f88; --c: #c98f45; --mark: #f0a35e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
p, li { max-width: 46rem; } small, .soft { color: var(--soft); }
figure { margin: 1.25rem 0; break-inside: avoid; } figcaption { font-weight: 600; } figcaption small { font-weight: 400; }
.legend { margin: .25rem 0; font-size: .85rem; color: var(--soft); } .legend span { margin-right: 1rem; white-space: nowrap; }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; vertical-align: -.1rem; }
.chart { width: 100%; border-collapse: collapse; table-layout: fixed; font-size: .9rem; }
.chart th { width: 11rem; text-align: left; font-weight: 400; padding: .1rem .5rem .1rem 0; }
.chart .bar { padding: 0; } .chart .note { width: 13.5rem; padding-left: .6rem; font-variant-numeric: tabular-nums; }
.chart svg { display: block; width: 100%; height: 1.3rem; } .marked th, .marked .note { font-weight: 600; color: var(--mark); }
.series-0 { fill: var(--a); } .series-1 { fill: var(--b); } .series-2 { fill: var(--c); }
i.series-0 { background: var(--a); } i.series-1 { background: var(--b); } i.series-2 { background: var(--c); }
.spread { stroke: var(--ink); stroke-width: 1.25; fill: none; }
.wide { overflow-x: auto; } .figures { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
.figures th, .figures td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
.figures th:first-child, .figures td:first-child { text-align: left; padding-left: 0; } .figures thead th { color: var(--soft); font-weight: 500; }
@media (max-width: 40rem) {
  .chart, .chart tbody { display: block; }
  .chart tr { display: grid; grid-template-columns: 1fr auto; margin-bottom: .4rem; }
  .chart th, .chart .note { width: auto; padding: 0; } .chart .bar { grid-column: 1 / -1; grid-row: 2; }
}
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --a: #2563a8; --b: #8fb8de; --c: #d2913c; --mark: #b3541e; }
  svg, i { print-color-adjust: exact; -webkit-print-color-adjust: exact; } main { max-width: none; padding: 0; } .wide { overflow: visible; } .figures { font-size: .7rem; } }
`;
