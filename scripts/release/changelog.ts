/**
 * The CHANGELOG: what is unreleased becomes a version, and what a version's notes are.
 *
 *   npx tsx scripts/release/changelog.ts 0.1.0   # the notes, for a release's page
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { ROOT } from '../run.js';

const UNRELEASED = '## Unreleased';

/** What stands under the heading of a version, without it. Throws when there is no such heading, or nothing under it. */
export function notes(changelog: string, version: string): string {
  const heading =
    version === 'Unreleased' ? /^## Unreleased$/m : new RegExp(`^## ${escaped(version)} - \\d{4}-\\d\\d-\\d\\d$`, 'm');
  const found = heading.exec(changelog);
  if (found === null) throw new Error(`CHANGELOG.md has no heading for ${version}`);
  const rest = changelog.slice(found.index + found[0].length);
  const text = rest.slice(0, /^## /m.exec(rest)?.index).trim();
  if (text === '') throw new Error(`CHANGELOG.md has nothing under ${version}`);
  return `${text}\n`;
}

/** The CHANGELOG with what is unreleased as that version, and nothing unreleased. `date`: year, month and day, with dashes. */
export function released(changelog: string, version: string, date: string): string {
  notes(changelog, 'Unreleased');
  return changelog.replace(`${UNRELEASED}\n`, `${UNRELEASED}\n\n## ${version} - ${date}\n`);
}

function escaped(text: string): string {
  return text.replace(/[.+*?^${}()|[\]\\]/g, '\\$&');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write(notes(readFileSync(`${ROOT}CHANGELOG.md`, 'utf8'), process.argv[2] ?? ''));
}
