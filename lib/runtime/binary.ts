/** The binary for this process, and the error message if it cannot be loaded. `native.ts` loads it. */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';

import { familySync, versionSync } from 'detect-libc';

import { PACKAGE_ROOT, VERSION } from '../util/package.js';

/** The targets for which releases contain a binary. */
export const TARGETS = ['linux-x64-gnu', 'linux-arm64-gnu', 'linux-x64-musl', 'linux-arm64-musl'] as const;

/** The file name of the binary for a target, in the package and in releases. */
export function binaryName(target: string): string {
  return `zerosend.${target}.node`;
}

/** The target of this process. A C library other than musl is treated as glibc; if that is wrong, loading fails. */
export function ownTarget(): string {
  return `linux-${process.arch}-${familySync() === 'musl' ? 'musl' : 'gnu'}`;
}

/** The path of the binary for this process: `ZEROSEND_BINARY`, or the one in the package. */
export function binaryPath(): string {
  const given = process.env.ZEROSEND_BINARY;
  return given ? path.resolve(given) : path.join(PACKAGE_ROOT, binaryName(ownTarget()));
}

/** Platform and C library for messages: `linux-x64 with glibc 2.36`. */
export function describePlatform(): string {
  const platform = `${process.platform}-${process.arch}`;
  if (process.platform !== 'linux') return platform;
  return `${platform} with ${[familySync() ?? 'an unknown C library', versionSync()].filter(Boolean).join(' ')}`;
}

/** Whether releases contain a binary for the target. */
export function isReleased(target = ownTarget()): boolean {
  return (TARGETS as readonly string[]).includes(target);
}

/** The error message for a binary that could not be loaded: the reason, and the command that helps. */
export function describeLoadError(error: unknown): string {
  const file = binaryPath();
  const message = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
  const [, glibc] = /version `GLIBC_([\d.]+)' not found/.exec(message) ?? [];
  let problem = message.includes(file) ? message : `${file}: ${message}`;
  let needsBuild = !isReleased();
  if (!existsSync(file)) {
    const others = binariesIn(path.dirname(file));
    problem = `${file} does not exist${others.length > 0 ? ` (found ${others.join(', ')})` : ''}`;
  } else if (glibc !== undefined) {
    problem = `${file} requires glibc ${glibc}`;
    needsBuild = true;
  } else if (familySync() === 'musl' && /ld-linux|libc\.so\.6/.test(message)) {
    problem = `${file} is built for glibc`;
  } else if (/libc\.so: |libc\.musl/.test(message)) {
    problem = `${file} is built for musl`;
  }
  return `cannot load the native binary of zerosend ${VERSION} on ${describePlatform()}: ${problem}; ${remedy(needsBuild)}`;
}

/** @param needsBuild Releases contain no suitable binary. */
function remedy(needsBuild: boolean): string {
  if (process.env.ZEROSEND_BINARY) return 'change or unset ZEROSEND_BINARY';
  if (existsSync(path.join(PACKAGE_ROOT, 'scripts/build.ts'))) return 'run "npm run build"';
  return needsBuild ? 'run "npx zerosend install --build" to compile it' : 'run "npx zerosend install"';
}

function binariesIn(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => /^zerosend\..*\.node$/.test(name));
  } catch {
    return [];
  }
}
