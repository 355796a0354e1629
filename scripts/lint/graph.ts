/**
 * Checks the import graph of the sources: folders import only from the folders that `layers.ts` allows, and there are no import cycles,
 * neither between folders nor between the files of a folder with more than three files.
 *
 * `npx tsx scripts/lint/graph.ts` prints the violations and exits with 1 if there are any.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';

import { ROOT } from '../run.js';
import { ALLOWED } from './layers.js';

/** Folders with at most this many files may contain import cycles. */
const MAX_FILES_WITH_CYCLES = 3;

/** Source files and the files they import, as paths from the root of the repository. */
export type Graph = Map<string, Set<string>>;

function filesBelow(base: string, folder: string, extension: string): string[] {
  return readdirSync(base + folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(extension) && !name.endsWith('.d.ts'))
    .map((name) => path.posix.join(folder, name))
    .filter((file) => statSync(base + file).isFile())
    .sort();
}

/** The imports of TypeScript files, including type imports. */
export function typescriptGraph(folder: string, base = ROOT): Graph {
  const files = new Set(filesBelow(base, folder, '.ts'));
  return new Map(
    [...files].map((file) => {
      const text = readFileSync(base + file, 'utf8');
      const imports = [...text.matchAll(/\b(?:from|import)\s*\(?\s*'(\.[^']+)\.js'/g)]
        .map((match) => path.posix.join(path.posix.dirname(file), `${match[1]}.ts`))
        .filter((imported) => files.has(imported));
      return [file, new Set(imports)];
    }),
  );
}

/** The paths in a use tree: `a::{b, c::{self, D as E}}` gives `a::b`, `a::c` and `a::c::D`. */
export function usePaths(tree: string): string[][] {
  const text = tree.replace(/\s+as\s+\w+/g, '').replace(/\s+/g, '');
  let at = 0;
  const parse = (prefix: string[]): string[][] => {
    const names = [...prefix];
    for (;;) {
      if (text[at] === '{') {
        at += 1;
        const all: string[][] = [];
        while (at < text.length && text[at] !== '}') {
          all.push(...parse(names));
          if (text[at] === ',') at += 1;
        }
        at += 1;
        return all;
      }
      const name = /^(?:r#)?\w+|^\*/.exec(text.slice(at))?.[0] ?? '';
      at += name.length;
      if (name !== 'self' || names.length === 0) names.push(name);
      if (text.slice(at, at + 2) !== '::') return [names];
      at += 2;
    }
  };
  return parse([]);
}

/** Removes comments, strings and the modules of unit tests, whose imports are not restricted. */
function productCode(text: string): string {
  const bare = text
    .replace(/\/\/[^\n]*/g, '')
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/"(?:\\.|[^"\\])*"/g, '""');
  const tests = bare.search(/#\[cfg\(test\)\]\s*mod \w+ \{/);
  return tests < 0 ? bare : bare.slice(0, tests);
}

interface Module {
  file: string;
  code: string;
  /** Names re-exported by `pub use`, with the paths they refer to. */
  reexports: Map<string, string[]>;
}

/** The imports between the files of a crate. A re-exported name counts as an import of the file that defines it. */
export function rustGraph(source: string, base = ROOT): Graph {
  const modules = new Map<string, Module>();
  for (const file of filesBelow(base, source, '.rs')) {
    const parts = path.posix.relative(source, file).replace(/\.rs$/, '').split('/');
    if (parts.at(-1) === 'mod' || (parts.length === 1 && parts[0] === 'lib')) parts.pop();
    modules.set(parts.join('::'), { file, code: productCode(readFileSync(base + file, 'utf8')), reexports: new Map() });
  }
  const absolute = (names: string[], module: string): string[] | undefined => {
    const here = module === '' ? [] : module.split('::');
    if (names[0] === 'crate') return names.slice(1);
    if (names[0] === 'self') return [...here, ...names.slice(1)];
    if (names[0] === 'super') {
      let up = 0;
      while (names[up] === 'super') up += 1;
      return [...here.slice(0, here.length - up), ...names.slice(up)];
    }
    return modules.has([...here, names[0]].join('::')) ? [...here, ...names] : undefined;
  };
  for (const [name, module] of modules) {
    for (const [, tree] of module.code.matchAll(/\bpub(?:\([^)]*\))?\s+use\s+([^;]+);/g)) {
      for (const names of usePaths(tree as string)) {
        const target = absolute(names, name);
        if (target !== undefined) module.reexports.set(names.at(-1) as string, target);
      }
    }
  }
  /** The file that defines the item of a path. */
  const resolve = (names: string[], depth = 0): string | undefined => {
    for (let length = names.length; length >= 0; length -= 1) {
      const module = modules.get(names.slice(0, length).join('::'));
      if (module === undefined) continue;
      const rest = names[length];
      const reexport = rest === undefined ? undefined : module.reexports.get(rest);
      if (reexport !== undefined && depth < 8) return resolve([...reexport, ...names.slice(length + 1)], depth + 1);
      return module.file;
    }
    return undefined;
  };
  const graph: Graph = new Map();
  for (const [name, module] of modules) {
    const imports = new Set<string>();
    const add = (names: string[]): void => {
      const target = absolute(names, name);
      const file = target && resolve(target);
      // Types of the crate root may be used anywhere.
      if (file !== undefined && file !== module.file && file !== `${source}/lib.rs`) imports.add(file);
    };
    for (const [, isPublic, tree] of module.code.matchAll(/\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);/g)) {
      if (isPublic === undefined) usePaths(tree as string).forEach(add);
    }
    const rest = module.code.replace(/\buse\s+[^;]+;/g, '').replace(/\bpub\(in [^)]*\)/g, '');
    for (const [names] of rest.matchAll(/\b(?:crate|super|self)(?:::\w+)+/g)) add(names.split('::'));
    graph.set(module.file, imports);
  }
  return graph;
}

/** Import cycles: Tarjan's strongly connected components of more than one node. */
export function cycles(graph: Graph): string[][] {
  const order = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const found: string[][] = [];
  const visit = (node: string): void => {
    order.set(node, order.size);
    low.set(node, order.get(node) as number);
    stack.push(node);
    for (const next of graph.get(node) ?? []) {
      if (!order.has(next)) visit(next);
      if (stack.includes(next)) low.set(node, Math.min(low.get(node) as number, low.get(next) as number));
    }
    if (low.get(node) === order.get(node)) {
      const group = stack.splice(stack.indexOf(node));
      if (group.length > 1) found.push(group.sort());
    }
  };
  for (const node of graph.keys()) if (!order.has(node)) visit(node);
  return found;
}

/** The import graph between folders; `folderOf` returns the folder of a file. */
export function folderGraph(graph: Graph, folderOf: (file: string) => string): Graph {
  const folders: Graph = new Map();
  for (const [file, imports] of graph) {
    const from = folderOf(file);
    const edges = folders.get(from) ?? new Set();
    folders.set(from, edges);
    for (const to of [...imports].map(folderOf)) if (to !== from) edges.add(to);
  }
  return folders;
}

/** The violations in `graph`, whose folders are those directly below `root`. */
export function problems(root: string, graph: Graph, allowed: Record<string, readonly string[]>): string[] {
  const folderOf = (file: string): string => {
    const [first, ...rest] = path.posix.relative(root, file).split('/') as [string, ...string[]];
    return rest.length === 0 ? first.replace(/\.\w+$/, '') : first;
  };
  const found: string[] = [];
  for (const [file, imports] of graph) {
    const from = folderOf(file);
    for (const imported of imports) {
      const to = folderOf(imported);
      if (to !== from && allowed[from]?.includes(to) !== true)
        found.push(`${file} may not import ${imported}: ${from} -> ${to} is not in scripts/lint/layers.ts`);
    }
  }
  for (const cycle of cycles(folderGraph(graph, folderOf)))
    found.push(`folders in ${root} import each other: ${cycle.join(', ')}`);
  const sizes = new Map<string, number>();
  for (const file of graph.keys()) {
    const folder = path.posix.dirname(file);
    sizes.set(folder, (sizes.get(folder) ?? 0) + 1);
  }
  for (const cycle of cycles(graph)) {
    const folders = new Set(cycle.map((file) => path.posix.dirname(file)));
    const isSmall = folders.size === 1 && (sizes.get([...folders][0] as string) ?? 0) <= MAX_FILES_WITH_CYCLES;
    // A cycle between folders was reported above.
    const isInOne = new Set(cycle.map(folderOf)).size === 1;
    if (isInOne && !isSmall) found.push(`files import each other: ${cycle.join(', ')}`);
  }
  return found;
}

if (process.argv[1]?.endsWith('graph.ts')) {
  const found = Object.entries(ALLOWED).flatMap(([root, allowed]) =>
    problems(root, root.startsWith('crates/') ? rustGraph(root) : typescriptGraph(root), allowed),
  );
  for (const problem of found) console.error(problem);
  process.exit(found.length === 0 ? 0 : 1);
}
