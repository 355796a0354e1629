/** Which binary a process needs, and what to do when it cannot be loaded. What loads it is `native.ts`. */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';

import { familySync, versionSync } from 'detect-libc';

import { PACKAGE_ROOT, VERSION } from '../util/package.js';

/** What every release has a binary for. */
export const TARGETS = ['linux-x64-gnu', 'linux-arm64-gnu', 'linux-x64-musl', 'linux-arm64-musl'] as const;

/** The file of a target's binary, in the package and in a release. */
export function binaryName(target: string): string {
  return `zerosend.${target}.node`;
}

/** The target of this process. A C library that is neither is taken for glibc, whose loader then says what is wrong. */
export function ownTarget(): string {
  return `linux-${process.arch}-${familySync() === 'musl' ? 'musl' : 'gnu'}`;
}

/** Where the binary is that this process loads: in the package, or where `ZEROSEND_BINARY` says. */
export function binaryPath(): string {
  const given = process.env.ZEROSEND_BINARY;
  return given ? path.resolve(given) : path.join(PACKAGE_ROOT, binaryName(ownTarget()));
}

/** Platform and C library, for messages: `linux-x64 with glibc 2.36`. */
export function platformInWords(): string {
  const where = `${process.platform}-${process.arch}`;
  if (process.platform !== 'linux') return where;
  return `${where} with ${[familySync() ?? 'an unknown C library', versionSync()].filter(Boolean).join(' ')}`;
}

/** Whether a release has a binary for this process. */
export function isReleased(target = ownTarget()): boolean {
  return (TARGETS as readonly string[]).includes(target);
}

/** Why the binary cannot be used, in words, and the one command that helps. */
export function explainFailure(error: unknown): string {
  const file = binaryPath();
  const message = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
  const [, glibc] = /version `GLIBC_([\d.]+)' not found/.exec(message) ?? [];
  let problem = message.includes(file) ? message : `${file}: ${message}`;
  let build = !isReleased();
  if (!existsSync(file)) {
    const others = binariesIn(path.dirname(file));
    problem = `${file} is missing${others.length > 0 ? ` (there is ${others.join(', ')})` : ''}`;
  } else if (glibc !== undefined) {
    problem = `${file} needs glibc ${glibc}`;
    build = true;
  } else if (familySync() === 'musl' && /ld-linux|libc\.so\.6/.test(message)) {
    problem = `${file} is for glibc`;
  } else if (/libc\.so: |libc\.musl/.test(message)) {
    problem = `${file} is for musl`;
  }
  return `the native part of zerosend ${VERSION} could not be loaded on ${platformInWords()}: ${problem}; ${remedy(build)}`;
}

/** @param build a binary of a release would not help. */
function remedy(build: boolean): string {
  if (process.env.ZEROSEND_BINARY) return 'change ZEROSEND_BINARY, or unset it';
  if (existsSync(path.join(PACKAGE_ROOT, 'scripts/build.ts'))) return 'run "npm run build"';
  return build ? 'run "npx zerosend install --build", which compiles it' : 'run "npx zerosend install"';
}

function binariesIn(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => /^zerosend\..*\.node$/.test(name));
  } catch {
    return [];
  }
}
