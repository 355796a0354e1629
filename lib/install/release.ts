/** What a release has for this package: addresses, and the checksums that the package brings with it. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { PACKAGE_ROOT, PROJECT_URL, VERSION } from '../util/package.js';

/** What is promised of a file. */
export interface Checksum {
  /** SHA-256 in hexadecimal. */
  sha256: string;
  /** Bytes. */
  size: number;
}

/** The checksums of a release's binaries; `undefined` for a package that is of no release. */
export function releasedChecksums(): Record<string, Checksum> | undefined {
  const file = path.join(PACKAGE_ROOT, 'checksums.json');
  try {
    return (JSON.parse(readFileSync(file, 'utf8')) as { files: Record<string, Checksum> }).files;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new Error(`'${file}' cannot be read (${(error as Error).message}); install the package anew`);
  }
}

/**
 * Where a file of the release is. Below a mirror it is as below the releases of the project: in a directory named after the version.
 *
 * @param mirror of `--mirror`; without it that of `ZEROSEND_MIRROR`, or of `zerosend_mirror` in an .npmrc.
 */
export function releaseUrl(file: string, mirror: string | undefined): URL {
  const { ZEROSEND_MIRROR, npm_config_zerosend_mirror } = process.env;
  const base = mirror || ZEROSEND_MIRROR || npm_config_zerosend_mirror || `${PROJECT_URL}/releases/download`;
  const url = URL.canParse(base) ? new URL(base) : undefined;
  if (url === undefined || (url.protocol !== 'https:' && url.protocol !== 'http:')) {
    throw new Error(`the mirror '${base}' must be a URL that begins with https:// or http://`);
  }
  url.pathname = path.posix.join(url.pathname, `v${VERSION}`, file);
  return url;
}

/** A URL for messages: without user and password. */
export function withoutCredentials(url: URL | string): string {
  const shown = new URL(url);
  shown.username = '';
  shown.password = '';
  return shown.href;
}
