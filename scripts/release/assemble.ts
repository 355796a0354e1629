/**
 * Creates the files of a release from the binaries in a directory: the package with the binaries and their checksums, SHA256SUMS, and the
 * bill of materials. The TypeScript must be compiled.
 *
 *   npx tsx scripts/release/assemble.ts release
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { binaryName, TARGETS } from '../../lib/runtime/binary.js';
import { VERSION } from '../../lib/util/package.js';
import { ROOT } from '../run.js';
import { sbom } from './sbom.js';

export interface ReleaseFiles {
  /** The absolute path of the package. */
  tarball: string;
  /** The targets with a binary. */
  targets: string[];
  /** The size of the unpacked package in bytes. */
  unpackedSize: number;
  /** Paths in the package. */
  contents: string[];
}

/** Assembles the release in `directory` from the binaries in it. */
export function assemble(directory: string): ReleaseFiles {
  const targets = TARGETS.filter((target) =>
    statSync(path.join(directory, binaryName(target)), { throwIfNoEntry: false }),
  );
  if (targets.length === 0) throw new Error(`no binary in '${directory}'; see scripts/release/binary.ts`);
  const staging = mkdtempSync(path.join(tmpdir(), 'zerosend-release-'));
  try {
    const [first] = pack(ROOT, staging);
    execFileSync('tar', ['-xzf', path.join(staging, first.filename), '-C', staging]);
    const unpacked = path.join(staging, 'package');
    for (const name of readdirSync(unpacked)) if (name.endsWith('.node')) rmSync(path.join(unpacked, name));
    const files: Record<string, { sha256: string; size: number }> = {};
    for (const name of targets.map(binaryName)) {
      const source = path.join(directory, name);
      copyFileSync(source, path.join(unpacked, name));
      files[name] = { sha256: sha256(source), size: statSync(source).size };
    }
    writeFileSync(path.join(unpacked, 'checksums.json'), `${JSON.stringify({ version: VERSION, files }, null, 2)}\n`);
    const [packed] = pack(unpacked, directory);
    const tarball = path.resolve(directory, packed.filename);
    const bill = `zerosend-${VERSION}.cdx.json`;
    writeFileSync(
      path.join(directory, bill),
      `${JSON.stringify(sbom('zerosend', VERSION, sha256(tarball)), null, 2)}\n`,
    );
    const sums = [...targets.map(binaryName), path.basename(tarball), bill]
      .sort()
      .map((name) => `${sha256(path.join(directory, name))}  ${name}\n`);
    writeFileSync(path.join(directory, 'SHA256SUMS'), sums.join(''));
    return { tarball, targets, unpackedSize: packed.unpackedSize, contents: packed.files.map((file) => file.path) };
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

interface Packed {
  filename: string;
  unpackedSize: number;
  files: { path: string }[];
}

function pack(cwd: string, destination: string): [Packed] {
  const args = ['pack', '--ignore-scripts', '--json', '--pack-destination', path.resolve(destination)];
  return JSON.parse(execFileSync('npm', args, { cwd, encoding: 'utf8', maxBuffer: 2 ** 26 })) as [Packed];
}

function sha256(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { tarball, targets, unpackedSize, contents } = assemble(process.argv[2] ?? 'release');
  console.log(`${tarball}: ${contents.length} files, ${unpackedSize} bytes unpacked, with ${targets.join(', ')}`);
  const missing = TARGETS.filter((target) => !targets.includes(target));
  if (missing.length > 0) console.log(`without ${missing.join(', ')}`);
  if (missing.length > 0 && process.argv.includes('--complete')) process.exit(1);
}
