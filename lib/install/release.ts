/** URLs of release files, and the checksums in the package. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { PACKAGE_ROOT, PROJECT_URL, VERSION } from '../util/package.js';

/** The expected content of a file. */
export interface Checksum {
  /** SHA-256 in hexadecimal. */
  sha256: string;
  /** Size in bytes. */
  size: number;
}

/** The checksums of the binaries of this release by file name; `undefined` for a package that was not released. */
export function releasedChecksums(): Record<string, Checksum> | undefined {
  const file = path.join(PACKAGE_ROOT, 'checksums.json');
  try {
    return (JSON.parse(readFileSync(file, 'utf8')) as { files: Record<string, Checksum> }).files;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new Error(`cannot read '${file}' (${(error as Error).message}); reinstall the package`);
  }
}

/**
 * The URL of a file of this release. A mirror has the same layout as the releases of the project: a directory for each version.
 *
 * @param mirror The value of `--mirror`. Default: `ZEROSEND_MIRROR`, or `zerosend_mirror` in an .npmrc.
 */
export function releaseUrl(file: string, mirror: string | undefined): URL {
  const { ZEROSEND_MIRROR, npm_config_zerosend_mirror } = process.env;
  const base = mirror || ZEROSEND_MIRROR || npm_config_zerosend_mirror || `${PROJECT_URL}/releases/download`;
  const url = URL.canParse(base) ? new URL(base) : undefined;
  if (url === undefined || (url.protocol !== 'https:' && url.protocol !== 'http:')) {
    throw new Error(`invalid mirror '${base}': use a URL that begins with https:// or http://`);
  }
  url.pathname = path.posix.join(url.pathname, `v${VERSION}`, file);
  return url;
}

/** A URL without user name and password, for messages. */
export function withoutCredentials(url: URL | string): string {
  const shown = new URL(url);
  shown.username = '';
  shown.password = '';
  return shown.href;
}
