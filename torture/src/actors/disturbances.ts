/** Changes of files and file systems during a round. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Operation } from '../../../__test__/support/faultfs-mount.js';
import { change, randomSize, type Tracked } from '../files.js';
import type { Random } from '../random.js';
import type { Report } from '../report.js';
import type { FuseArea, World } from '../world.js';

/** Changes files, one after another. */
export async function changeFiles(
  files: readonly Tracked[],
  report: Report,
  random: Random,
  signal: AbortSignal,
): Promise<void> {
  const changing = files.filter(({ kind }) => kind !== 'steady' && kind !== 'release');
  while (!signal.aborted) {
    await sleep(random.int(5, 60));
    const file = random.pick(changing);
    await change(file, random);
    report.count('files', `changes: ${file.kind}`);
  }
}

/** Points the link to the next release. */
export async function release(world: World, report: Report, random: Random, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await sleep(random.int(100, 800));
    world.releases.next(random.chance(0.5) ? 4000 : randomSize(random));
    report.count('files', 'releases');
  }
}

const OPERATIONS: readonly Operation[] = ['lookup', 'getattr', 'open', 'read', 'release'];

/** Delays, fails and hangs operations of a FUSE file system, and kills its daemon. */
export async function disturbFuse(
  { mount, trouble }: FuseArea,
  report: Report,
  random: Random,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await sleep(random.int(200, 1500));
    if (signal.aborted) return;
    const operation = random.pick(OPERATIONS);
    const what = random.pick(['delay', 'delay', 'hang', 'fail', 'kill'] as const);
    report.count('fuse', what === 'kill' ? 'daemon killed' : `${operation}: ${what}`);
    switch (what) {
      case 'delay':
        await mount.set(operation, { delay: random.int(50, 1500) });
        await sleep(random.int(500, 3000));
        await mount.clear();
        break;
      case 'hang':
        await mount.set(operation, { hang: true });
        await sleep(random.int(1000, 8000));
        await mount.clear();
        break;
      case 'fail':
        trouble.begin();
        await mount.set(random.chance(0.3) ? '*' : operation, {
          errno: random.pick(['EIO', 'ENOTCONN', 'ESTALE', 'EACCES']),
        });
        await sleep(random.int(100, 1500));
        await mount.clear();
        trouble.end();
        break;
      case 'kill':
        trouble.begin();
        await mount.kill();
        await sleep(random.int(0, 1000));
        await mount.remount();
        trouble.end();
        break;
    }
  }
}
