/**
 * A FUSE file system for tests (`crates/faultfs`): mirrors a directory; operations can be delayed, failed and hung at run time.
 * Needs root, /dev/fuse and cargo. Tests use it through `faultfs.ts`.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { PACKAGE_ROOT } from '../../lib/util/package.js';

/** An operation of the file system; `remove` is unlink(2) and rmdir(2). */
export type Operation =
  | 'lookup'
  | 'getattr'
  | 'setattr'
  | 'readlink'
  | 'open'
  | 'create'
  | 'read'
  | 'write'
  | 'flush'
  | 'fsync'
  | 'release'
  | 'opendir'
  | 'readdir'
  | 'mkdir'
  | 'symlink'
  | 'remove'
  | 'rename'
  | 'statfs';

export interface MountOptions {
  /** How long the kernel caches names, in milliseconds. Default: 1000, as libfuse. */
  entryTimeout?: number;
  /** How long the kernel caches attributes, in milliseconds. Default: 1000, as libfuse. */
  attrTimeout?: number;
  /** Keep the page cache of a file when it is opened again. Default: false. */
  keepCache?: boolean;
  /** Bypass the page cache. Default: false. */
  directIo?: boolean;
  /** Report size 0 for regular files, although bytes can be read (with `directIo`). Default: false. */
  zeroSize?: boolean;
  /** Report times in whole seconds. Default: false. */
  wholeSeconds?: boolean;
  /** Drop cached pages when attributes show a change. Default: true, as libfuse. */
  autoInvalidate?: boolean;
}

export interface Fault {
  /** Hold the reply back for this long, in milliseconds. */
  delay?: number;
  /** Reply this error, after the delay: `'EIO'`, `'ENOTCONN'`, `'ESTALE'` ... */
  errno?: string;
  /** Hold the reply back until the rule is replaced or cleared. */
  hang?: boolean;
  /** Apply this many times. The kernel repeats a failed read-ahead once as a read. */
  times?: number;
  /** Only reads and writes that go beyond this offset. */
  from?: number;
}

const EXECUTABLE = join(process.env.CARGO_TARGET_DIR ?? join(PACKAGE_ROOT, 'target'), 'debug/faultfs');

/** The missing requirement for FUSE mounts; undefined when they are possible. */
export function fuseMissing(): string | undefined {
  if (process.platform !== 'linux') return 'Linux';
  if (process.getuid?.() !== 0) return 'root';
  const capabilities = BigInt(`0x${/^CapEff:\s*(\w+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'}`);
  if ((capabilities & (1n << 21n)) === 0n) return 'CAP_SYS_ADMIN';
  try {
    closeSync(openSync('/dev/fuse', 'r+'));
  } catch {
    return '/dev/fuse';
  }
  return spawnSync('cargo', ['--version']).status === 0 ? undefined : 'cargo';
}

/** Builds the program if it is missing or older than its sources. */
function build(): void {
  const built = statSync(EXECUTABLE, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const sources = join(PACKAGE_ROOT, 'crates/faultfs/src');
  if (readdirSync(sources).every((name) => statSync(join(sources, name)).mtimeMs <= built)) return;
  const { status } = spawnSync('cargo', ['build', '-p', 'zerosend-faultfs', '--quiet'], {
    cwd: PACKAGE_ROOT,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (status !== 0) throw new Error('building zerosend-faultfs failed; see the messages of cargo above');
}

export class FaultFs {
  /** The mirrored directory. Writes to it change files without the mount. */
  readonly backing: string;
  /** The mount point. */
  readonly path: string;
  readonly #directory: string;
  readonly #options: MountOptions;
  #daemon: ChildProcess | undefined;
  readonly #answers: ((line: string | undefined) => void)[] = [];

  private constructor(directory: string, options: MountOptions, mountPoint: string | undefined) {
    this.#directory = directory;
    this.#options = options;
    this.backing = join(directory, 'backing');
    this.path = mountPoint ?? join(directory, 'mount');
    mkdirSync(this.backing);
    if (mountPoint === undefined) mkdirSync(this.path);
  }

  /** Mounts a mirror of a new directory, at `mountPoint` if given. Call `close` afterwards. */
  static async mount(options: MountOptions = {}, mountPoint?: string): Promise<FaultFs> {
    build();
    const mounted = new FaultFs(mkdtempSync(join(tmpdir(), 'zerosend-faultfs-')), options, mountPoint);
    try {
      await mounted.#start();
    } catch (error) {
      await mounted.close();
      throw error;
    }
    return mounted;
  }

  /** Process id of the daemon. */
  get pid(): number {
    return this.#daemon?.pid ?? 0;
  }

  /** Adds a rule for an operation (`'*'`: all) on paths below the mount, which begin with `/`; `*` and `?` are wildcards. */
  async set(operation: Operation | '*', fault: Fault, glob = '*'): Promise<void> {
    const words = Object.entries(fault)
      .filter(([, value]) => value !== undefined && value !== false)
      .map(([name, value]) => (value === true ? name : `${name}=${value}`));
    await this.#command(`set ${operation} ${words.join(' ')} -- ${glob}`);
  }

  /** Removes the rule for an operation and a pattern, or all rules. Held calls resume. */
  async clear(operation?: Operation | '*', glob = '*'): Promise<void> {
    await this.#command(operation === undefined ? 'clear' : `clear ${operation} -- ${glob}`);
  }

  /** The number of calls of an operation, and of calls that are held back now. */
  async count(operation: Operation): Promise<{ calls: number; waiting: number }> {
    const [calls = 0, waiting = 0] = (await this.#command(`count ${operation}`)).split(' ').map(Number);
    return { calls, waiting };
  }

  /** Resolves when at least `count` calls of an operation are held back. */
  async held(operation: Operation, count = 1, ms = 20_000): Promise<void> {
    const end = performance.now() + ms;
    while ((await this.count(operation)).waiting < count) {
      if (performance.now() > end) throw new Error(`fewer than ${count} calls of ${operation} are held after ${ms} ms`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  /** Kills the daemon. The mount stays, and its operations fail with ENOTCONN. */
  async kill(): Promise<void> {
    const daemon = this.#daemon;
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return;
    const closed = once(daemon, 'close');
    daemon.kill('SIGKILL');
    await closed;
  }

  /** Kills the daemon if it runs, and mounts again at the same path without rules. Files opened before stay broken. */
  async remount(): Promise<void> {
    await this.kill();
    this.#unmount();
    await this.#start();
  }

  /** Unmounts, and removes the backing directory and the created mount point. */
  async close(): Promise<void> {
    const daemon = this.#daemon;
    if (daemon !== undefined && daemon.exitCode === null && daemon.signalCode === null) {
      const closed = once(daemon, 'close');
      daemon.kill('SIGTERM');
      const timer = setTimeout(() => daemon.kill('SIGKILL'), 10_000);
      await closed;
      clearTimeout(timer);
    }
    this.#unmount();
    rmSync(this.backing, { recursive: true, force: true });
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** Lazily unmounts everything mounted at the path. */
  #unmount(): void {
    while (readFileSync('/proc/self/mounts', 'utf8').includes(` ${this.path} `)) {
      if (spawnSync('umount', ['-l', this.path]).status !== 0) throw new Error(`cannot unmount ${this.path}`);
    }
  }

  async #start(): Promise<void> {
    const { entryTimeout, attrTimeout, keepCache, directIo, zeroSize, wholeSeconds, autoInvalidate } = this.#options;
    const args = [
      ...(entryTimeout === undefined ? [] : [`--entry-timeout=${entryTimeout}`]),
      ...(attrTimeout === undefined ? [] : [`--attr-timeout=${attrTimeout}`]),
      ...(keepCache ? ['--keep-cache'] : []),
      ...(directIo ? ['--direct-io'] : []),
      ...(zeroSize ? ['--zero-size'] : []),
      ...(wholeSeconds ? ['--whole-seconds'] : []),
      ...(autoInvalidate === false ? ['--no-auto-invalidate'] : []),
    ];
    const daemon = spawn(EXECUTABLE, [...args, this.backing, this.path], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#daemon = daemon;
    // EPIPE after the daemon was killed.
    daemon.stdin.on('error', () => {});
    daemon.on('error', () => this.#answers.shift()?.(undefined));
    daemon.on('close', () => {
      for (const answer of this.#answers.splice(0)) answer(undefined);
    });
    const mounted = this.#answer('mount');
    createInterface(daemon.stdout).on('line', (line) => this.#answers.shift()?.(line));
    await mounted;
  }

  async #command(line: string): Promise<string> {
    const answer = this.#answer(line);
    this.#daemon?.stdin?.write(`${line}\n`);
    return await answer;
  }

  #answer(command: string): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#answers.push((line) => {
        if (line === undefined) reject(new Error(`faultfs ended before it answered '${command}'`));
        else if (line.startsWith('error ')) reject(new Error(`faultfs: ${line.slice(6)}`));
        else resolve(line);
      });
      const { exitCode, signalCode } = this.#daemon ?? {};
      if (exitCode !== null || signalCode !== null) this.#answers.pop()?.(undefined);
    });
  }
}
