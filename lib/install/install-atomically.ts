/** Installs a binary: atomically, and only one that loads. */
import { execFile } from 'node:child_process';
import { chmod, mkdir, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';

import { platformInWords } from '../runtime/binary.js';
import { VERSION } from '../util/package.js';

/**
 * Writes `bytes` beside `file`, loads that once in a process of its own, and gives it the name. Whoever has the old one loaded keeps it.
 *
 * Throws, and leaves things as they were, when the directory cannot be written or the binary does not load or is of another version.
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
    // The name must not be there before the bytes are.
    await handle.sync();
  } finally {
    await handle.close();
  }
  await chmod(file, 0o755);
}

/** A binary that is of no use here. */
export class Unusable extends Error {}

/**
 * Loads a binary and asks for its version; throws {@link Unusable}. In another process, because one that is damaged can bring it
 * down.
 */
export async function verifyLoads(file: string): Promise<void> {
  const program = 'process.stdout.write(require(process.argv[1]).packageVersion())';
  const version = await new Promise<string>((resolve, reject) => {
    execFile(process.execPath, ['-e', program, file], { timeout: 60_000 }, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      const said =
        /^\w*Error: (.*)$/m.exec(stderr)?.[1] ?? (error.signal ? `it ends by ${error.signal}` : error.message);
      reject(new Unusable(`the binary does not load on ${platformInWords()}: ${said}`));
    });
  });
  if (version !== VERSION) throw new Unusable(`the binary is of zerosend ${version}, and this is zerosend ${VERSION}`);
}

function explain(error: unknown, file: string): unknown {
  const { code } = error as NodeJS.ErrnoException;
  const directory = path.dirname(file);
  switch (code) {
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new Error(
        `'${directory}' cannot be written (${code}); run this as its owner, or "npx zerosend install --to <directory>" and ` +
          `set ZEROSEND_BINARY=<directory>/${path.basename(file)}`,
      );
    case 'ENOSPC':
    case 'EDQUOT':
      return new Error(
        `there is no room for the binary in '${directory}' (${code}); make some, or use --to <directory>`,
      );
    default:
      return error;
  }
}
