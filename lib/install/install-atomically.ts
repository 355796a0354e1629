/** Installs a binary: atomically, and only one that loads. */
import { execFile } from 'node:child_process';
import { chmod, mkdir, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';

import { describePlatform } from '../runtime/binary.js';
import { VERSION } from '../util/package.js';

/**
 * Writes a binary to a temporary file in the directory of `file`, verifies that it loads, and renames it to `file`. Processes that have
 * the previous binary loaded are not affected.
 *
 * Throws, and changes nothing, if the directory is not writable, or if the binary does not load or has another version.
 */
export async function installAtomically(bytes: Uint8Array, file: string): Promise<void> {
  const temporary = path.join(path.dirname(file), `.${path.basename(file, '.node')}.${process.pid}.node`);
  try {
    await mkdir(path.dirname(file), { recursive: true });
    await write(bytes, temporary);
    await verifyLoads(temporary);
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw explain(error, file);
  }
}

async function write(bytes: Uint8Array, file: string): Promise<void> {
  const handle = await open(file, 'w', 0o755);
  try {
    await handle.writeFile(bytes);
    // After a crash the file must not exist without its content.
    await handle.sync();
  } finally {
    await handle.close();
  }
  await chmod(file, 0o755);
}

/** The binary cannot be used on this machine. */
export class UnusableBinaryError extends Error {}

/**
 * Loads a binary and checks its version; throws {@link UnusableBinaryError}. Uses a child process, because a damaged binary can crash
 * the process.
 */
export async function verifyLoads(file: string): Promise<void> {
  const program = 'process.stdout.write(require(process.argv[1]).packageVersion())';
  const version = await new Promise<string>((resolve, reject) => {
    execFile(process.execPath, ['-e', program, file], { timeout: 60_000 }, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      const reason =
        /^\w*Error: (.*)$/m.exec(stderr)?.[1] ??
        (error.signal ? `the process was killed by ${error.signal}` : error.message);
      reject(new UnusableBinaryError(`the binary does not load on ${describePlatform()}: ${reason}`));
    });
  });
  if (version !== VERSION)
    throw new UnusableBinaryError(`binary version ${version} does not match package version ${VERSION}`);
}

function explain(error: unknown, file: string): unknown {
  const { code } = error as NodeJS.ErrnoException;
  const directory = path.dirname(file);
  switch (code) {
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new Error(
        `'${directory}' is not writable (${code}); run this command as its owner, or run "npx zerosend install --to <directory>" and ` +
          `set ZEROSEND_BINARY=<directory>/${path.basename(file)}`,
      );
    case 'ENOSPC':
    case 'EDQUOT':
      return new Error(`no space for the binary in '${directory}' (${code}); free some space, or use --to <directory>`);
    default:
      return error;
  }
}
