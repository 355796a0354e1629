/** `zerosend install`: downloads or compiles the native binary, if the package contains none that loads. */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';

import { build } from '../install/build.js';
import { download } from '../install/download.js';
import { installAtomically, UnusableBinaryError, verifyLoads } from '../install/install-atomically.js';
import { type Checksum, releasedChecksums, releaseUrl, withoutCredentials } from '../install/release.js';
import { binaryName, describePlatform, isReleased, ownTarget } from '../runtime/binary.js';
import { PACKAGE_ROOT, VERSION } from '../util/package.js';
import { bytes, ProgressLine } from './terminal.js';
import { parse, UsageError } from './usage.js';

const HELP = `usage: zerosend install [options]

Downloads the native binary of this version, verifies its checksum, checks that it loads,
and installs it into the package. Does nothing if it is installed already.

      --build          compile the binary from the sources in the package; requires cargo
      --from <file>    install this file instead of downloading one
      --mirror <url>   download <url>/v${VERSION}/<file> (default: the releases of the project)
      --to <dir>       install into this directory; then set ZEROSEND_BINARY to the file
  -h, --help           print this help

Environment variables: ZEROSEND_MIRROR, HTTPS_PROXY, HTTP_PROXY, NO_PROXY,
NODE_EXTRA_CA_CERTS. Settings in .npmrc: zerosend_mirror, https-proxy, proxy, noproxy.`;

const BUILD = 'run "npx zerosend install --build" to compile it';

export async function install(args: string[]): Promise<void> {
  const { values } = parse({
    args,
    options: {
      build: { type: 'boolean' },
      from: { type: 'string' },
      mirror: { type: 'string' },
      to: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const sources = [
    values.build && '--build',
    values.from !== undefined && '--from',
    values.mirror !== undefined && '--mirror',
  ];
  const given = sources.filter(Boolean);
  if (given.length > 1) throw new UsageError(`${given.join(' and ')} cannot be combined`);
  if (process.platform !== 'linux') {
    throw new Error(`the native binary requires Linux; on ${describePlatform()} files are served through Node streams`);
  }
  const name = binaryName(ownTarget());
  const file = path.join(path.resolve(values.to ?? PACKAGE_ROOT), name);
  if (values.build) {
    await installAtomically(await build(), file);
  } else if (!(await installReleased(name, file, values))) {
    console.log(`${file} is installed already`);
    return;
  }
  console.log(`installed ${file}`);
  if (values.to !== undefined) console.log(`set ZEROSEND_BINARY=${file}`);
}

/** Installs the binary of the release. Returns false if it is installed already. */
async function installReleased(
  name: string,
  file: string,
  { from, mirror }: { from?: string; mirror?: string },
): Promise<boolean> {
  const expected = expectedChecksum(name);
  try {
    // O_NONBLOCK: opening a FIFO would block a thread.
    const flag = constants.O_RDONLY | constants.O_NONBLOCK;
    const installed = await readFile(file, { flag }).catch(() => undefined);
    if (installed !== undefined && sha256(installed) === expected.sha256) {
      await verifyLoads(file);
      return false;
    }
    const received = from === undefined ? await downloadBinary(name, expected, mirror) : await readBinary(from);
    const found = sha256(received);
    if (found !== expected.sha256) {
      const source = from ?? withoutCredentials(releaseUrl(name, mirror));
      throw new Error(
        `checksum mismatch: ${source} is not ${name} of zerosend ${VERSION}: expected SHA-256 ${expected.sha256}, got ${found}; nothing was installed`,
      );
    }
    await installAtomically(received, file);
    return true;
  } catch (error) {
    if (error instanceof UnusableBinaryError) throw new Error(`${error.message}; ${BUILD}`);
    throw error;
  }
}

function expectedChecksum(name: string): Checksum {
  const checksums = releasedChecksums();
  if (checksums === undefined)
    throw new Error(`this package was not released, so no binary can be downloaded; ${BUILD}`);
  const expected = checksums[name];
  if (expected !== undefined) return expected;
  const releases = isReleased() ? `the release of zerosend ${VERSION} contains` : 'releases contain';
  throw new Error(`${releases} no binary for ${describePlatform()}; ${BUILD}`);
}

async function downloadBinary(name: string, { size }: Checksum, mirror: string | undefined): Promise<Buffer> {
  const url = releaseUrl(name, mirror);
  const line = new ProgressLine();
  console.error(`downloading ${withoutCredentials(url)} (${bytes(size)})`);
  try {
    return await download(url, size, (received) => line.draw(received / size, name));
  } finally {
    line.clear();
  }
}

async function readBinary(file: string): Promise<Buffer> {
  return await readFile(file).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`cannot read '${file}': ${error.code}`);
  });
}

function sha256(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}
