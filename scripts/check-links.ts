/**
 * Checks every link in the Markdown files: the target file exists and contains the linked heading. `--external` also requests links to
 * other sites.
 *
 *   npx tsx scripts/check-links.ts [--external]
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';

import { globSync } from 'glob';

import { ROOT } from './run.js';

const files = globSync('**/*.md', { cwd: ROOT, ignore: ['**/node_modules/**', 'target/**', 'bench/results/smoke*'] });
const external = new Set<string>();
const wrong: string[] = [];

/** The anchor that GitHub generates for a heading. */
const anchor = (heading: string) =>
  heading
    .trim()
    .toLowerCase()
    .replace(/[`*]/g, '')
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');

function anchors(path: string): Set<string> {
  const text = readFileSync(path, 'utf8').replace(/^```[\s\S]*?^```/gm, '');
  return new Set([...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => anchor(heading)));
}

for (const file of files) {
  const text = readFileSync(join(ROOT, file), 'utf8')
    .replace(/^```[\s\S]*?^```/gm, '')
    .replace(/`[^`\n]*`/g, '');
  const links = [...text.matchAll(/\]\(([^)\s]+)\)/g), ...text.matchAll(/(?:src|href)="([^"]+)"/g)];
  for (const [, link = ''] of links) {
    if (/^https?:/.test(link)) {
      external.add(link);
      continue;
    }
    const [path = '', fragment] = link.split('#');
    const target = path === '' ? join(ROOT, file) : join(ROOT, dirname(file), path);
    if (!existsSync(target)) wrong.push(`${file}: ${link} does not exist`);
    else if (fragment !== undefined && !anchors(target).has(fragment))
      wrong.push(`${file}: ${relative(ROOT, target)} has no heading #${fragment}`);
  }
}
if (process.argv.includes('--external')) {
  for (const link of external) {
    const status = await fetch(link, { method: 'HEAD', signal: AbortSignal.timeout(10_000) }).then(
      (response) => (response.ok ? '' : `status ${response.status}`),
      (error: Error) => error.message,
    );
    if (status !== '') wrong.push(`${link}: ${status}`);
  }
}
for (const one of wrong) console.error(one);
console.log(`${files.length} files, ${wrong.length} wrong links`);
process.exit(wrong.length === 0 ? 0 : 1);
