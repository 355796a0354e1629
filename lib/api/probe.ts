/** `probe`: tests the features of the kernel. */

import type { ErrnoName, ProbeReport } from '#native';
import { engine, requestValue } from '../runtime/engine.js';

/** A kernel feature. */
export interface ProbedMechanism {
  /** `sendfile`, `splice`, `io_uring`, ... */
  name: string;
  /** Whether the test succeeded. */
  available: boolean;
  /** The system call that failed. */
  syscall: string | undefined;
  /** The error: `ENOSYS` from a kernel without it, `EPERM` from a sandbox that forbids it, ... */
  code: string | undefined;
  /** The first kernel version that has it. */
  since: string;
  /** What zerosend uses it for, or why it does not use it. */
  purpose: string;
  /** What zerosend does instead where it is missing; `undefined` when it does not use it. */
  without: string | undefined;
}

/** Limits of pipes; see pipe(7). 0: no limit, or not reported. */
export interface PipeLimits {
  /** Bytes of a new pipe. */
  defaultSize: number;
  /** Bytes of the largest pipe for an unprivileged user (`/proc/sys/fs/pipe-max-size`). */
  maxSize: number;
  /** Pages in all pipes of an unprivileged user beyond which a new pipe has one or two pages. */
  userPagesSoft: number;
  /** Pages in all pipes of an unprivileged user beyond which no pipe can be made. */
  userPagesHard: number;
}

/** A network interface and its offload features; `undefined`: not reported. See netdevice(7), `SIOCETHTOOL`. */
export interface NetworkInterface {
  name: string;
  up: boolean;
  loopback: boolean;
  /** It sends packets from several pages. Without it the kernel copies the pages of a file into one buffer. */
  scatterGather: boolean | undefined;
  /** It computes checksums of sent packets. Without it the CPU reads every byte. */
  transmitChecksum: boolean | undefined;
  /** It verifies checksums of received packets. */
  receiveChecksum: boolean | undefined;
  /** It divides larger packets into TCP segments (TSO). */
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
 * Tests the features of the kernel with a scratch file and loopback sockets; the result does not depend on version numbers. Takes some
 * milliseconds off the JavaScript thread, and leaves no files behind.
 */
export async function probe(): Promise<Probe> {
  const found = await requestValue<ProbeReport>((number) => engine().probe(number));
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
