/** The software bill of materials of a release, in CycloneDX 1.5: the crates in the binaries and the npm dependencies. */
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { ROOT } from '../run.js';

interface Component {
  type: 'library';
  'bom-ref': string;
  name: string;
  version: string;
  purl: string;
  scope: 'required';
  licenses?: { license: { id: string } }[] | { expression: string }[];
  hashes?: { alg: 'SHA-512'; content: string }[];
}

/** The document for the package `name` of `version`. */
export function sbom(name: string, version: string, tarballSha256: string): object {
  const ref = `pkg:npm/${name}@${version}`;
  const components = [...packages(), ...crates()];
  return {
    $schema: 'http://cyclonedx.org/schema/bom-1.5.schema.json',
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    serialNumber: `urn:uuid:${randomUUID()}`,
    version: 1,
    metadata: {
      timestamp: new Date().toISOString(),
      component: {
        type: 'library',
        'bom-ref': ref,
        name,
        version,
        purl: ref,
        licenses: [{ license: { id: 'MIT' } }],
        hashes: [{ alg: 'SHA-256', content: tarballSha256 }],
      },
    },
    components,
    dependencies: [{ ref, dependsOn: components.map((one) => one['bom-ref']) }],
  };
}

function component(purl: string, name: string, version: string, license: string | undefined): Component {
  const one: Component = { type: 'library', 'bom-ref': purl, name, version, purl, scope: 'required' };
  // A single word is an SPDX identifier, several words are an expression.
  if (license !== undefined) {
    one.licenses = /^[\w.+-]+$/.test(license)
      ? [{ license: { id: license } }]
      : [{ expression: license.replaceAll('/', ' OR ') }];
  }
  return one;
}

interface Locked {
  version: string;
  license?: string;
  integrity?: string;
  dependencies?: Record<string, string>;
}

/** The direct and transitive dependencies, from the lock file. */
function packages(): Component[] {
  const lock = JSON.parse(readFileSync(`${ROOT}package-lock.json`, 'utf8')) as { packages: Record<string, Locked> };
  const found = new Map<string, Component>();
  const visit = (at: string) => {
    for (const name of Object.keys(lock.packages[at]?.dependencies ?? {})) {
      const key = nearest(lock.packages, at, name);
      const { version, license, integrity } = lock.packages[key] as Locked;
      const purl = `pkg:npm/${name.replace('@', '%40')}@${version}`;
      if (found.has(purl)) continue;
      const one = component(purl, name, version, license);
      if (integrity?.startsWith('sha512-')) {
        const content = Buffer.from(integrity.slice('sha512-'.length), 'base64').toString('hex');
        one.hashes = [{ alg: 'SHA-512', content }];
      }
      found.set(purl, one);
      visit(key);
    }
  };
  visit('');
  return [...found.values()];
}

/** The key in the lock file that Node resolves `name` to from the package at `at`. */
function nearest(all: Record<string, Locked>, at: string, name: string): string {
  for (let base = at; ; base = base.slice(0, Math.max(0, base.lastIndexOf('/node_modules/')))) {
    const key = base === '' ? `node_modules/${name}` : `${base}/node_modules/${name}`;
    if (all[key] !== undefined) return key;
    if (base === '') throw new Error(`package-lock.json has no ${name}; run "npm install"`);
  }
}

interface Metadata {
  packages: { id: string; name: string; version: string; license: string | null; source: string | null }[];
  resolve: { nodes: { id: string; deps: { pkg: string; dep_kinds: { kind: string | null }[] }[] }[] };
}

/** The crates in the binding, without those that only tests and build scripts need. */
function crates(): Component[] {
  const args = ['metadata', '--format-version', '1', '--locked', '--filter-platform', 'x86_64-unknown-linux-gnu'];
  const output = execFileSync('cargo', args, { cwd: ROOT, encoding: 'utf8', maxBuffer: 2 ** 28 });
  const { packages: all, resolve } = JSON.parse(output) as Metadata;
  const nodes = new Map(resolve.nodes.map((node) => [node.id, node]));
  const waiting = all.filter(({ name }) => name === 'zerosend-node').map(({ id }) => id);
  const seen = new Set(waiting);
  for (const id of waiting) {
    for (const { pkg, dep_kinds } of nodes.get(id)?.deps ?? []) {
      if (seen.has(pkg) || !dep_kinds.some(({ kind }) => kind === null)) continue;
      seen.add(pkg);
      waiting.push(pkg);
    }
  }
  return all
    .filter(({ id, source }) => seen.has(id) && source !== null)
    .map(({ name, version, license }) =>
      component(`pkg:cargo/${name}@${version}`, name, version, license ?? undefined),
    );
}
