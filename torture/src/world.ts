/** The directories, files and mounts of a run. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { FaultFs, fuseMissing, type MountOptions } from '../../__test__/support/faultfs-mount.js';
import { createFile, Releases, randomSize, Tracked } from './files.js';
import type { Random } from './random.js';
import { type Report, Trouble } from './report.js';

/** A FUSE file system below the root of the sites, and whether it has faults now. */
export interface FuseArea {
  mount: FaultFs;
  files: Tracked[];
  trouble: Trouble;
}

export class World {
  readonly directory: string;
  /** The root of most sites. */
  readonly root: string;
  readonly files: Tracked[] = [];
  readonly releases: Releases;
  /** A small file that never changes, so a request for it never waits long. */
  readonly canary: Tracked;
  /** A file larger than caches keep by default, so it is read from the disk for each request. */
  readonly cold: Tracked;
  /** A sparse file below the sites, so large that hashing takes long. */
  readonly huge = 'huge.bin';
  /** A file system without caching in the kernel. */
  fuse: FuseArea | undefined;
  /** The same with times in whole seconds and without faults. */
  coarse: FuseArea | undefined;
  /** A file system that is nearly full; undefined without root. */
  small: string | undefined;
  /** A file system for mirrors, with delays and failures. */
  slowDisk: FuseArea | undefined;

  private constructor(directory: string, random: Random) {
    this.directory = directory;
    this.root = join(directory, 'root');
    mkdirSync(this.root);
    const add = (kind: Tracked['kind'], name: string, size: number) => {
      const file = createFile(new Tracked(kind, join(this.root, name), name), size);
      this.files.push(file);
      return file;
    };
    this.canary = add('steady', 'canary.bin', 8192);
    this.cold = add('steady', 'cold.bin', 200_000);
    writeFileSync(join(this.root, this.huge), '');
    truncateSync(join(this.root, this.huge), 4 * 2 ** 30);
    for (const [at, size] of [0, 1, 777, 16_384, 65_536, 65_537, 300_000, 5_000_000].entries()) {
      add('steady', `steady-${at}.bin`, size);
    }
    for (const kind of ['replace', 'rewrite', 'resize', 'vanish'] as const) {
      for (let at = 0; at < 8; at++) add(kind, `${kind}-${at}.bin`, randomSize(random));
    }
    mkdirSync(join(directory, 'releases'));
    this.releases = new Releases(join(directory, 'releases'), ['a.bin', 'b.bin', 'c.bin']);
  }

  static async create(random: Random, report: Report): Promise<World> {
    const world = new World(mkdtempSync(join(tmpdir(), 'zerosend-torture-')), random);
    const missing = fuseMissing();
    if (missing === undefined) {
      world.fuse = await world.#mountFuse('fuse', random);
      world.coarse = await world.#mountFuse('coarse', random, { wholeSeconds: true });
      world.slowDisk = { mount: await FaultFs.mount(), files: [], trouble: new Trouble() };
      const small = join(world.directory, 'small');
      mkdirSync(small);
      if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'torture', small]).status === 0) world.small = small;
    } else report.log(`without FUSE and a full file system: that needs ${missing}`);
    return world;
  }

  async #mountFuse(name: string, random: Random, options: MountOptions = {}): Promise<FuseArea> {
    const point = join(this.root, name);
    mkdirSync(point);
    const mount = await FaultFs.mount({ attrTimeout: 0, entryTimeout: 0, ...options }, point);
    const files: Tracked[] = [];
    for (const kind of ['steady', 'replace', 'rewrite', 'vanish'] as const) {
      for (let at = 0; at < 3; at++) {
        const file = `${kind}-${at}.bin`;
        files.push(createFile(new Tracked(kind, join(mount.backing, file), `${name}/${file}`), randomSize(random)));
      }
    }
    return { mount, files, trouble: new Trouble() };
  }

  async close(): Promise<void> {
    await this.fuse?.mount.close();
    await this.coarse?.mount.close();
    await this.slowDisk?.mount.close();
    if (this.small !== undefined) spawnSync('umount', ['-l', this.small]);
    rmSync(this.directory, { recursive: true, force: true });
  }
}
