/** Tests with a FUSE file system. They are skipped with a warning when it cannot be mounted. */
import test, { type ExecutionContext } from 'ava';

import { FaultFs, fuseMissing, type MountOptions } from './faultfs-mount.js';

export { type Fault, FaultFs, type MountOptions, type Operation } from './faultfs-mount.js';

const missing = fuseMissing();
if (missing !== undefined) console.warn(`skipped: tests with a FUSE file system need ${missing}`);

/** `test`, or `test.skip` when FUSE cannot be mounted. */
export const fuse: typeof test.skip = missing === undefined ? test : test.skip;

/** The same with `test.serial`. */
export const fuseSerial: typeof test.skip = missing === undefined ? test.serial : test.serial.skip;

/** Mounts a mirror of a new directory. It is unmounted and removed after the test. */
export async function mount(t: ExecutionContext, options: MountOptions = {}): Promise<FaultFs> {
  const mounted = await FaultFs.mount(options);
  t.teardown(() => mounted.close());
  return mounted;
}
