/** `probe`: what the kernel can do here, tried out. */

import type { ErrnoName, ProbeReport } from '#native';
import { ask, engine } from '../runtime/engine.js';

/** One thing that a kernel can do. */
export interface ProbedMechanism {
  /** `sendfile`, `splice`, `io_uring`, ... */
  name: string;
  /** It was tried, and it worked. */
  available: boolean;
  /** The system call that was refused. */
  syscall: string | undefined;
  /** Why: `ENOSYS`, a kernel without it; `EPERM`, a sandbox that forbids it; ... */
  code: string | undefined;
  /** The kernel that had it first. */
  since: string;
  /** What zerosend uses it for, or why it does not. */
  purpose: string;
  /** What zerosend does without it; `undefined` when it does not use it. */
  without: string | undefined;
}

/** What pipes may be. 0: the kernel does not say, or has no such limit. */
export interface PipeLimits {
  /** Bytes of a new pipe. */
  defaultSize: number;
  /** Bytes of the largest that an unprivileged user may ask for (`/proc/sys/fs/pipe-max-size`). */
  maxSize: number;
  /** Pages in pipes of one unprivileged user, beyond which new ones are of one or two pages. */
  userPagesSoft: number;
  /** Pages in pipes of one unprivileged user, beyond which there are no new ones. */
  userPagesHard: number;
}

/** What a network interface does by itself; `undefined`: it does not say. See netdevice(7), `SIOCETHTOOL`. */
export interface NetworkInterface {
  name: string;
  up: boolean;
  loopback: boolean;
  /** Takes packets from memory in several pieces. Without it the kernel copies a file's pages together before they go out. */
  scatterGather: boolean | undefined;
  /** Makes checksums of what is sent. Without it the processor reads every byte after all. */
  transmitChecksum: boolean | undefined;
  /** Checks checksums of what is received. */
  receiveChecksum: boolean | undefined;
  /** Cuts TCP segments from larger packets. */
  segmentation: boolean | undefined;
}

export interface Probe {
  /** `uname -r`. */
  kernel: string;
  /** `uname -m`. */
  machine: string;
  /** Bytes of a page. */
  pageSize: number;
  pipes: PipeLimits;
  mechanisms: ProbedMechanism[];
  interfaces: NetworkInterface[];
}

/**
 * Tries what the kernel can do, on a scratch file and on sockets of the loopback: the answer is what happened, not what a
 * version promises. Takes some milliseconds, off the JavaScript thread, and leaves nothing behind.
 */
export async function probe(): Promise<Probe> {
  const { probe: found } = (await ask((number) => engine().probe(number))) as unknown as { probe: ProbeReport };
  return {
    ...found,
    mechanisms: found.mechanisms.map(({ refusal, syscall, without, ...mechanism }) => ({
      ...mechanism,
      syscall,
      code: (refusal as ErrnoName | undefined)?.code,
      without,
    })),
    interfaces: found.interfaces.map((one) => ({
      name: one.name,
      up: one.up,
      loopback: one.loopback,
      scatterGather: one.scatterGather,
      transmitChecksum: one.transmitChecksum,
      receiveChecksum: one.receiveChecksum,
      segmentation: one.segmentation,
    })),
  };
}
