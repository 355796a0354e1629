/** `Pipe`: the kernel's own buffer, through which splice(2), tee(2) and vmsplice(2) move pages. */
import { engine } from '../runtime/engine.js';
import { failure, invalid } from '../util/errors.js';

const MAX_SIZE = 2 ** 31 - 1;

const collected = new FinalizationRegistry<number>((token) => engine().release(token));

export interface PipeOptions {
  /** Bytes of room, 1 to 2^31 - 1, rounded up by the kernel to a power of two of pages. Default 65536. */
  size?: number | undefined;
}

/** What has become of requests for pipes in this process, by transfers and by {@link Pipe}. */
export interface PipeStatistics {
  /** Pipes made. */
  made: number;
  /** Transfers served with a pipe of the pool. */
  reused: number;
  /** Pipes smaller than was asked for, because of `/proc/sys/fs/pipe-max-size` or the user's quota of pipe pages; see pipe(7). */
  small: number;
  /** Transfers that got none (256 in use, or no descriptors left) and fell back to `read-write`. */
  refused: number;
}

/** The counters. */
export function pipeStatistics(): PipeStatistics {
  return engine().pipeStatistics();
}

/**
 * A pipe, both ends non-blocking and closed on exec; see pipe2(2). It is closed by {@link Pipe.close}, or when it is
 * collected.
 *
 * Where `/proc/sys/fs/pipe-max-size` or the user's quota (`/proc/sys/fs/pipe-user-pages-soft`) does not allow the size, it
 * is smaller and counted in {@link pipeStatistics}: see `size`. Throws `EMFILE` and `ENFILE`.
 */
export class Pipe {
  readonly #token: number;
  #readFd: number;
  #writeFd: number;

  constructor(options: PipeOptions = {}) {
    const { size = 65536 } = options;
    checkSize(size);
    const { token, readFd, writeFd } = engine().makePipe(size);
    this.#token = token;
    this.#readFd = readFd;
    this.#writeFd = writeFd;
    collected.register(this, token, this);
  }

  /** Bytes of room when every page in it is full; see fcntl(2), `F_GETPIPE_SZ`. */
  get size(): number {
    return engine().pipeSize(this.#token);
  }

  /** Bytes in it. */
  get available(): number {
    return engine().pipeAvailable(this.#token);
  }

  /** The descriptor to read from; -1 when it is closed. It is the pipe's: do not close it by its number. */
  get readFd(): number {
    return this.#readFd;
  }

  /** The descriptor to write to; -1 when it is closed. It is the pipe's: do not close it by its number. */
  get writeFd(): number {
    return this.#writeFd;
  }

  /** True when both ends are closed. */
  get closed(): boolean {
    return this.#readFd < 0 && this.#writeFd < 0;
  }

  /**
   * Asks for room for `size` bytes (fcntl(2), `F_SETPIPE_SZ`) and returns what it is then: a power of two of pages.
   * Throws `EPERM` over `/proc/sys/fs/pipe-max-size` or over the user's quota, `EBUSY` when it holds more than that.
   */
  resize(size: number): number {
    checkSize(size);
    return engine().resizePipe(this.#token, size);
  }

  /**
   * Closes an end, or both. Closing the end to write to lets who reads see the end of the bytes. Closing what is closed
   * does nothing.
   */
  close(end?: 'read' | 'write'): void {
    if (end !== undefined && end !== 'read' && end !== 'write') throw invalid('end', end, "'read' or 'write'");
    if (this.closed) return;
    const read = end !== 'write' ? -1 : this.#readFd;
    const write = end !== 'read' ? -1 : this.#writeFd;
    if (read < 0 && write < 0) {
      collected.unregister(this);
      engine().release(this.#token);
    } else {
      engine().closePipeEnd(this.#token, end as 'read' | 'write');
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
