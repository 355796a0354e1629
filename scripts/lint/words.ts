/**
 * Words and turns of phrase that are not plain English for an engineer, in sources, tests, documentation and workflows.
 *
 * `npx tsx scripts/lint/words.ts [file...]` prints each with its place and what to write instead, and exits with 1.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

import { ROOT } from '../run.js';

/** A pattern, and the remedy that is printed with it. */
const DENIED: [RegExp, string][] = [
  [/\bwho(ever|m)?\b/i, "name the thing: 'the client that', 'a caller that'"],
  [/\b(some|no|any|every)body(?!-)\b/i, "name the thing: 'the client', 'no thread', 'any process'"],
  [/\bfor ever\b/i, "'forever', 'indefinitely', or the bound"],
  [/\banew\b/i, "'again'"],
  [/\b(is|are|was|were|be|been|being|gets?) told\b/i, "'is given', 'is notified', 'receives'"],
  [
    /\b(hears? of|heard of|lets? go of|puts? up with|cares? for|wants? to hear|has a word|last words?)\b/i,
    'a literal verb',
  ],
  [/\b(of|on) (its|their|one's|ones) own\b(?! (terms|stack))/i, "'separate', 'dedicated', 'private', 'by itself'"],
  [/\bgoes by\b|\bgoes? round\b|\bgone round\b/i, "'passes', 'wraps'"],
  [/(?<!\bthere )\b(is|are|was|were) no(?! longer\b| more\b| less\b| later\b| earlier\b)\s+[a-z]+/i, "'is not a ...'"],
  [/\bbut must be\b/i, "'must be'"],
  // Except for the text of ENOENT.
  [/\bno such\b(?! file or directory)/i, "'unknown', 'not found'"],
  [/\bsteps? aside\b/i, "'is disabled'"],
  [
    /\b(without a word|late is better|better than never|as if nothing|in its turn|none the less|so it goes)\b/i,
    'a literal statement',
  ],
  [/\broads?\b/i, "'method', 'path'"],
  [/\b(behave|believe|trust|mistrust)s? (it|them)\b.*\bfor\b.*\bever\b/i, 'a literal statement'],
  [/\bharms? (nobody|no)\b/i, "'does not affect'"],
  [
    /\bwhat (is|was|are|were|there|came|comes|has|had|it|they|he|she) (said|asked|wanted|told|there|to be|under way|left over|meant)\b/i,
    'a noun',
  ],
  [/\b(go|goes|went) on\b/i, "'continues', 'is still running'"],
  [/\b(is|are|was|were|has|have|had) gone\b/i, "'is closed', 'is removed', 'has disconnected', 'has exited'"],
  [/\b(go|goes|went) away\b/i, "'disconnects', 'exits', 'stops'"],
  [/\b(holds?|held) up\b/i, "'delays'"],
  [/\ball the same\b/i, "'nevertheless', or nothing"],
  [/\b(says|said) so\b/i, "'reports it'"],
  [/\bsaid\b/, "'stated'; for a variable, 'output', 'lines'"],
  [/\bpatience\b/i, "'timeout'"],
  [/\d [a-z]+ at least\b/i, "'at least' before the number"],
  [/\bthat (is|are) none\b/i, "'an invalid ...'"],
  [/\b(is|are|was|were) (not )?there already\b|\bis not there\b/i, "'already exists', 'does not exist'"],
  [/\bprocessor time\b/i, "'CPU time'"],
  [/\bbeside (each|one) (other|another)\b/i, "'side by side', 'compared'"],
  [/\bhand-overs?\b/i, "'handoff'"],
  [/\b(is|be|are|was|were) told apart\b/i, "'is distinguished'"],
  [/\bas ever\b|\bby hand\b(?! ?-)|\bto be had\b|\bfor want of\b/i, 'a literal statement'],
];

const EXCLUDED =
  /^(package-lock|bench\/package-lock|Cargo\.lock|native\.d\.ts|docs\/api\.md|scripts\/lint\/words\.ts|__test__\/lint\.test\.ts)|README\.zh-CN\.md$|\/(corpus|results|vectors|site)\//;

const given = process.argv.slice(2);
const listed = execFileSync('git', ['ls-files', '*.rs', '*.ts', '*.md', '*.toml', '*.yml', '*.json', '.ci/run'], {
  cwd: ROOT,
  encoding: 'utf8',
});
const files = given.length > 0 ? given : listed.split('\n').filter((file) => file !== '' && !EXCLUDED.test(file));

let count = 0;
for (const file of files) {
  const lines = readFileSync(given.length > 0 ? file : ROOT + file, 'utf8').split('\n');
  lines.forEach((line, at) => {
    for (const [pattern, remedy] of DENIED) {
      const found = pattern.exec(line);
      if (found === null) continue;
      count += 1;
      console.error(`${file}:${at + 1}: '${found[0]}': write ${remedy}`);
    }
  });
}
process.exit(count === 0 ? 0 : 1);
