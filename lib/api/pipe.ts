/** `Pipe`: a buffer of the kernel, through which splice(2), tee(2) and vmsplice(2) move pages. */
import { engine } from '../runtime/engine.js';
import { NativeHandle } from '../runtime/handle.js';
import { failure, invalid } from '../util/errors.js';

const MAX_SIZE = 2 ** 31 - 1;

export interface PipeOptions {
  /** Capacity in bytes, 1 to 2^31 - 1. The kernel rounds it up to a power of two of pages. Default 65536. */
  size?: number | undefined;
}

/** Counters of requests for pipes in this process, by transfers and by {@link Pipe}. */
export interface PipeStatistics {
  /** Pipes made. */
  made: number;
  /** Requests served from the pool. */
  reused: number;
  /** Pipes smaller than requested, because of `/proc/sys/fs/pipe-max-size` or the user's quota of pipe pages; see pipe(7). */
  small: number;
  /** Refused requests (256 in use, or no descriptors left). The transfers fell back to `read-write`. */
  refused: number;
}

/** Returns the counters of this process. */
export function pipeStatistics(): PipeStatistics {
  return engine().pipeStatistics();
}

/**
 * A pipe whose ends are non-blocking and close-on-exec; see pipe2(2). It is closed by {@link Pipe.close}, or when it is
 * garbage collected.
 *
 * Where `/proc/sys/fs/pipe-max-size` or the user's quota (`/proc/sys/fs/pipe-user-pages-soft`) does not allow the size, the
 * pipe is smaller, and counted in {@link pipeStatistics}; see `size`. Throws `EMFILE` and `ENFILE`.
 */
export class Pipe {
  readonly #handle: NativeHandle;
  #readFd: number;
  #writeFd: number;

  constructor(options: PipeOptions = {}) {
    const { size = 65536 } = options;
    checkSize(size);
    const { handle, readFd, writeFd } = engine().makePipe(size);
    this.#handle = new NativeHandle(handle, 'the pipe');
    this.#readFd = readFd;
    this.#writeFd = writeFd;
  }

  /** Capacity in bytes; see fcntl(2), `F_GETPIPE_SZ`. */
  get size(): number {
    return engine().pipeSize(this.#handle.id);
  }

  /** Bytes in the pipe. */
  get available(): number {
    return engine().pipeAvailable(this.#handle.id);
  }

  /** The descriptor of the read end; -1 when it is closed. The pipe owns it: do not close it by number. */
  get readFd(): number {
    return this.#readFd;
  }

  /** The descriptor of the write end; -1 when it is closed. The pipe owns it: do not close it by number. */
  get writeFd(): number {
    return this.#writeFd;
  }

  /** True when both ends are closed. */
  get closed(): boolean {
    return this.#readFd < 0 && this.#writeFd < 0;
  }

  /**
   * Changes the capacity (fcntl(2), `F_SETPIPE_SZ`) and returns the new one in bytes: a power of two of pages. Throws `EPERM`
   * above `/proc/sys/fs/pipe-max-size` or the user's quota, and `EBUSY` when the pipe holds more than `size` bytes.
   */
  resize(size: number): number {
    checkSize(size);
    return engine().resizePipe(this.#handle.id, size);
  }

  /**
   * Closes one end, or both by default. After the write end is closed, readers get the remaining bytes and then the end.
   * Closing a closed end does nothing.
   */
  close(end?: 'read' | 'write'): void {
    if (end !== undefined && end !== 'read' && end !== 'write') throw invalid('end', end, "'read' or 'write'");
    if (this.closed) return;
    const read = end !== 'write' ? -1 : this.#readFd;
    const write = end !== 'read' ? -1 : this.#writeFd;
    if (read < 0 && write < 0) {
      this.#handle.close();
    } else {
      engine().closePipeEnd(this.#handle.id, end as 'read' | 'write');
    }
    this.#readFd = read;
    this.#writeFd = write;
  }
}

function checkSize(size: number): void {
  if (typeof size !== 'number') throw invalid('size', size, 'an integer number of bytes');
  if (!Number.isInteger(size) || size < 1 || size > MAX_SIZE) {
    throw failure('ERR_ZEROSEND_OUT_OF_RANGE', `invalid size ${size}: use an integer from 1 to ${MAX_SIZE}`);
  }
}
