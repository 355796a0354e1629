/**
 * Looks into binaries of a release: architecture, C library and the oldest version of it that will do, what else they need. Fails when one
 * asks for more than a release promises.
 *
 *   npx tsx scripts/release/inspect.ts release/*.node
 */
import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The oldest supported glibc, that of RHEL 7. */
export const GLIBC_FLOOR = '2.17';

export interface BinaryFacts {
  file: string;
  /** Bytes. */
  size: number;
  machine: string;
  /** The shared libraries it is linked with. */
  needed: string[];
  /** The newest glibc version of its imported symbols; '' without glibc. */
  glibc: string;
  /** Violations of the requirements of a release. */
  faults: string[];
}

/** The libraries of glibc, and libgcc, which Node needs too. */
const GLIBC_LIBRARIES =
  /^(libc\.so\.6|libm\.so\.6|libdl\.so\.2|libpthread\.so\.0|librt\.so\.1|libgcc_s\.so\.1|ld-linux-.*)$/;
/** Both names of the musl library. */
const MUSL_LIBRARIES = /^(libc\.so|libc\.musl-\w+\.so\.1)$/;
const MACHINES: Record<string, RegExp> = { x64: /X86-64/, arm64: /AArch64/ };

/** Inspects a binary; its file name contains the target. */
export function inspect(file: string, floor = GLIBC_FLOOR): BinaryFacts {
  const readelf = (...args: string[]) => execFileSync('readelf', ['-W', ...args, file], { encoding: 'utf8' });
  const [, arch = '', libc = ''] = /\.linux-(\w+)-(\w+)\.node$/.exec(file) ?? [];
  const machine = /Machine:\s+(.+)/.exec(readelf('--file-header'))?.[1] ?? '';
  const dynamic = readelf('--dynamic');
  const needed = [...dynamic.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name = '']) => name);
  const versions = [...readelf('--version-info').matchAll(/Name: GLIBC_([\d.]+)/g)].map(([, version = '']) => version);
  const glibc = versions.sort(byVersion).at(-1) ?? '';

  const faults: string[] = [];
  if (!MACHINES[arch]?.test(machine)) faults.push(`it is for ${machine}`);
  const allowed = libc === 'musl' ? MUSL_LIBRARIES : GLIBC_LIBRARIES;
  const foreign = needed.filter((name) => !allowed.test(name));
  if (foreign.length > 0) faults.push(`it needs ${foreign.join(', ')}`);
  if (libc === 'musl' && glibc !== '') faults.push('it needs glibc');
  if (libc === 'gnu' && byVersion(glibc, floor) > 0) faults.push(`it needs glibc ${glibc}, not ${floor}`);
  if (/\((RPATH|RUNPATH)\)/.test(dynamic)) faults.push('it has an RPATH or RUNPATH');
  if (/GNU_STACK.*RWE/.test(readelf('--program-headers'))) faults.push('its stack is executable');
  if (/ \.symtab /.test(readelf('--section-headers'))) faults.push('it is not stripped');
  if (!/napi_register_module_v1/.test(readelf('--dyn-syms'))) faults.push('it is not a Node module');
  return { file, size: statSync(file).size, machine, needed, glibc, faults };
}

/** A readable summary. */
export function describe({ file, size, machine, needed, glibc, faults }: BinaryFacts): string {
  const facts = [
    machine,
    glibc === '' ? 'no glibc' : `glibc ${glibc} or newer`,
    `needs ${needed.join(', ')}`,
    `${size} bytes`,
  ];
  return `${path.basename(file)}: ${facts.join('; ')}${faults.map((fault) => `\n  not fit for a release: ${fault}`).join('')}`;
}

function byVersion(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const all = process.argv.slice(2).map((file) => inspect(file));
  for (const facts of all) console.log(describe(facts));
  process.exit(all.length > 0 && all.every(({ faults }) => faults.length === 0) ? 0 : 1);
}
