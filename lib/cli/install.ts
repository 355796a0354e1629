/** `zerosend install`: gets the native part, where the package came without it or with one that does not load. */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';

import { build } from '../install/build.js';
import { download } from '../install/download.js';
import { installAtomically, Unusable, verifyLoads } from '../install/install-atomically.js';
import { type Checksum, releasedChecksums, releaseUrl, withoutCredentials } from '../install/release.js';
import { binaryName, isReleased, ownTarget, platformInWords } from '../runtime/binary.js';
import { PACKAGE_ROOT, VERSION } from '../util/package.js';
import { bytes, ProgressLine } from './terminal.js';
import { parse, UsageError } from './usage.js';

const HELP = `usage: zerosend install [options]

Downloads the native part of this version from its release, compares it with the checksum
that the package has, loads it once, and puts it into the package. Nothing is downloaded
when it is there already.

      --build          compile it instead, from the sources in the package (needs cargo)
      --from <file>    take a file that was downloaded elsewhere
      --mirror <url>   where the releases are: <url>/v${VERSION}/<file> (default: the project's)
      --to <dir>       put it there instead; then set ZEROSEND_BINARY to the file
  -h, --help

The environment: ZEROSEND_MIRROR, HTTPS_PROXY, HTTP_PROXY, NO_PROXY, NODE_EXTRA_CA_CERTS; of an
.npmrc: zerosend_mirror, https-proxy, proxy, noproxy.`;

const BUILD = 'run "npx zerosend install --build", which compiles it';

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
  const ways = [
    values.build && '--build',
    values.from !== undefined && '--from',
    values.mirror !== undefined && '--mirror',
  ];
  const given = ways.filter(Boolean);
  if (given.length > 1) throw new UsageError(`${given.join(' and ')} exclude each other`);
  if (process.platform !== 'linux') {
    throw new Error(
      `the native part is for Linux, and this is ${platformInWords()}; files are served through streams here`,
    );
  }
  const name = binaryName(ownTarget());
  const file = path.join(path.resolve(values.to ?? PACKAGE_ROOT), name);
  if (values.build) {
    await installAtomically(await build(), file);
  } else if (!(await installReleased(name, file, values))) {
    console.log(`${file} is there already, and loads`);
    return;
  }
  console.log(`installed ${file}`);
  if (values.to !== undefined) console.log(`set ZEROSEND_BINARY=${file}`);
}

/** From the release; false: it is there already. */
async function installReleased(
  name: string,
  file: string,
  { from, mirror }: { from?: string; mirror?: string },
): Promise<boolean> {
  const expected = expectation(name);
  try {
    // O_NONBLOCK: a FIFO in its place has no bytes, instead of keeping a thread until there is a writer.
    const flag = constants.O_RDONLY | constants.O_NONBLOCK;
    const there = await readFile(file, { flag }).catch(() => undefined);
    if (there !== undefined && sha256(there) === expected.sha256) {
      await verifyLoads(file);
      return false;
    }
    const received = from === undefined ? await fetchIt(name, expected, mirror) : await readIt(from);
    const found = sha256(received);
    if (found !== expected.sha256) {
      const source = from ?? withoutCredentials(releaseUrl(name, mirror));
      throw new Error(
        `${source} is not ${name} of zerosend ${VERSION}: expected SHA-256 ${expected.sha256}, got ${found}; nothing was installed`,
      );
    }
    await installAtomically(received, file);
    return true;
  } catch (error) {
    if (error instanceof Unusable) throw new Error(`${error.message}; ${BUILD}`);
    throw error;
  }
}

function expectation(name: string): Checksum {
  const checksums = releasedChecksums();
  if (checksums === undefined)
    throw new Error(`this package is of no release, so there is nothing to download; ${BUILD}`);
  const expected = checksums[name];
  if (expected !== undefined) return expected;
  const what = isReleased() ? `the release of zerosend ${VERSION} has no` : 'there is no prebuilt';
  throw new Error(`${what} binary for ${platformInWords()}; ${BUILD}`);
}

async function fetchIt(name: string, { size }: Checksum, mirror: string | undefined): Promise<Buffer> {
  const url = releaseUrl(name, mirror);
  const line = new ProgressLine();
  console.error(`downloading ${withoutCredentials(url)} (${bytes(size)})`);
  try {
    return await download(url, size, (received) => line.draw(received / size, name));
  } finally {
    line.clear();
  }
}

async function readIt(file: string): Promise<Buffer> {
  return await readFile(file).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`'${file}' cannot be read: ${error.code}`);
  });
}

function sha256(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}
