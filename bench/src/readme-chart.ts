// The chart of the README: throughput relative to @fastify/static, as a self-contained SVG.

import type { Results } from './page.ts';

const SERVERS: [string, string][] = [
  ['fastify-static', '@fastify/static'],
  ['sirv', 'sirv'],
  ['zerosend', 'zerosend/fastify'],
  ['nginx', 'nginx'],
  ['front-door', 'zerosend, front door'],
];
const SIZES: [string, string][] = [
  ['1k', '1 KiB'],
  ['64k', '64 KiB'],
  ['1m', '1 MiB'],
];
const [LEFT, WIDTH, ROW] = [170, 720, 22];

export function readmeChart({ files }: Results): string {
  const ratio = (size: string, variant: string) =>
    files.rows.find((row) => row.size === size && row.variant === variant)?.ratios['fastify-static'] ?? 0;
  const max = Math.max(...SIZES.flatMap(([size]) => SERVERS.map(([variant]) => ratio(size, variant))));
  const parts: string[] = [];
  let y = 28;
  for (const [size, name] of SIZES) {
    parts.push(`<text class="head" x="0" y="${y}">files of ${name}</text>`);
    y += 10;
    for (const [variant, label] of SERVERS) {
      const value = ratio(size, variant);
      const width = ((WIDTH - LEFT - 60) * value) / max;
      const ours = variant === 'zerosend' || variant === 'front-door';
      parts.push(
        `<text class="label" x="${LEFT - 10}" y="${y + 15}">${label}</text>`,
        `<rect class="${ours ? 'ours' : 'theirs'}" x="${LEFT}" y="${y + 3}" width="${width.toFixed(1)}" height="${ROW - 6}"/>`,
        `<text x="${(LEFT + width + 6).toFixed(1)}" y="${y + 15}">${value.toFixed(1)} ×</text>`,
      );
      y += ROW;
    }
    y += 26;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y - 16}" role="img" aria-label="Throughput relative to @fastify/static">
<style>
text { font: 13px system-ui, sans-serif; fill: #1b1f24; } .label { text-anchor: end; } .head { font-weight: 600; }
.ours { fill: #b3541e; } .theirs { fill: #8fb8de; }
@media (prefers-color-scheme: dark) { text { fill: #e6eaef; } .ours { fill: #f0a35e; } .theirs { fill: #355f88; } }
</style>
${parts.join('\n')}
</svg>
`;
}
