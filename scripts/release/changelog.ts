/**
 * Reads the notes of a version from the CHANGELOG, and turns the section 'Unreleased' into a version.
 *
 *   npx tsx scripts/release/changelog.ts 0.1.0   # prints the notes of a release
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { ROOT } from '../run.js';

const UNRELEASED = '## Unreleased';

/** The text below the heading of a version. Throws when the heading is missing or its section is empty. */
export function notes(changelog: string, version: string): string {
  const heading =
    version === 'Unreleased' ? /^## Unreleased$/m : new RegExp(`^## ${escaped(version)} - \\d{4}-\\d\\d-\\d\\d$`, 'm');
  const found = heading.exec(changelog);
  if (found === null) throw new Error(`CHANGELOG.md has no heading for ${version}`);
  const rest = changelog.slice(found.index + found[0].length);
  const text = rest.slice(0, /^## /m.exec(rest)?.index).trim();
  if (text === '') throw new Error(`the section ${version} of CHANGELOG.md is empty`);
  return `${text}\n`;
}

/** The CHANGELOG with the section 'Unreleased' renamed to that version and a new empty one above. `date`: `YYYY-MM-DD`. */
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
