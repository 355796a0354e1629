/** `createSplitter`: one source, several sinks, by tee(2). */
import type { Socket } from 'node:net';
import type { RelayReport } from '#native';
import { within } from '../runtime/bounds.js';
import { engine } from '../runtime/engine.js';
import { open, openAll } from '../runtime/output.js';
import {
  failureOf,
  NOT_READY,
  type RelaySessionOptions,
  readSessionOptions,
  SessionEndpoint,
  spliceSockets,
  systemError,
} from '../runtime/relay-session.js';
import { reset } from '../runtime/reset.js';
import { aborted, failure, invalid, type ZerosendError } from '../util/errors.js';
import { type FileSource, nameFile, parseEnum } from '../util/options.js';
import { Pipe } from './pipe.js';
import { sendFile } from './send-file.js';

/** A plain `net.Socket`, a {@link Pipe}, a descriptor of a socket or pipe, or a file. */
export type SplitSource = Socket | Pipe | number | { file: FileSource };

/**
 * A plain `net.Socket`, a {@link Pipe}, a descriptor of a socket or pipe, or a file: a path is made or emptied and then appended
 * to; a FIFO is written to, and must have a reader; a descriptor is written from its position on.
 */
export type SplitSink = Socket | Pipe | number | { file: FileSource };

export interface SplitterOptions extends RelaySessionOptions {
  /**
   * What becomes of bytes that a sink does not take in time, beyond the 256 KiB of its pipe (512 KiB for a file).
   * `'block'`, the default: all wait for the slowest, and when one fails, it is over. `'drop'`: it misses them, which is
   * counted; a socket or pipe that fails is left behind, a file gets what it takes again later.
   */
  policy?: 'block' | 'drop' | undefined;
  /**
   * Whether sockets and {@link Pipe}s among the sinks are ended at the end; when it fails, sockets are reset instead. Default true.
   */
  end?: boolean | undefined;
}

export interface SplitterResult {
  /** Bytes that came. */
  bytes: number;
  /**
   * Of each sink: bytes that it got, bytes that it missed (with those that were being written to a file when it ended), and
   * the last failure.
   */
  sinks: Array<{ bytes: number; dropped: number; error?: ZerosendError }>;
  /** Wall time in milliseconds. */
  durationMs: number;
}

export interface Splitter {
  /**
   * Resolves when all has come and is with the sinks. Rejects with the errno's name, `ERR_ZEROSEND_TIMEOUT`,
   * `ERR_ZEROSEND_CLOSED` or `ABORT_ERR`; `error.side` is what has failed (`'source'`, `'sinks[1]'`), `error.bytes` and
   * `error.sinks` say how much went before.
   */
  readonly finished: Promise<SplitterResult>;
  /** Ends it now: `finished` rejects with `ERR_ZEROSEND_CLOSED`. */
  close(): void;
}

const MOST_SINKS = 14;

/**
 * Copies a stream to several sinks without a copy in user space, on a native thread. Each gets the same bytes.
 *
 * Node neither reads the source nor writes to the sinks meanwhile; what it had read of the source comes first.
 *
 * Rejects with `ERR_ZEROSEND_INVALID_ARGUMENT` for arguments that are wrong (also a source socket that gives text after
 * `setEncoding`, and that of an HTTP request), `ERR_ZEROSEND_BUSY` for a source that is read already, and with the errno's name
 * for files that cannot be opened; then Node goes on reading the source as if nothing had been asked.
 */
export async function createSplitter(
  source: SplitSource,
  sinks: readonly SplitSink[],
  options: SplitterOptions = {},
): Promise<Splitter> {
  const settings = readSessionOptions(options);
  const { policy = 'block', end = true, signal } = options;
  parseEnum('policy', policy, ['block', 'drop']);
  if (!Array.isArray(sinks) || sinks.length === 0) throw invalid('sinks', sinks, 'an array of at least one sink');
  if (sinks.length > MOST_SINKS) {
    throw failure('ERR_ZEROSEND_LIMIT', `sinks has ${sinks.length} entries, but may have at most ${MOST_SINKS}`);
  }
  if (signal?.aborted) throw aborted(signal);
  const started = performance.now();
  const named = sinks.map((sink: SplitSink, at) =>
    isFile(sink) ? nameFile(`sinks[${at}].file`, sink.file) : undefined,
  );
  if (isFile(source)) nameFile('source.file', source.file);
  const feeder = isFile(source) ? new Pipe() : undefined;
  const feeding = new AbortController();
  const bounds = { signal, timeout: options.idleTimeout };
  let ends: SessionEndpoint[] = [];
  let files: Array<number | undefined> = [];
  const giveBack = (bytes?: Buffer) => {
    for (const one of ends) one.giveBack(one === ends[0] ? bytes : undefined);
    for (const token of files) if (token !== undefined) engine().release(token);
    feeder?.close();
  };
  try {
    let fed: Promise<unknown> = Promise.resolve();
    const from = feeder?.readFd ?? (source instanceof Pipe ? source.readFd : (source as Socket | number));
    const streams = sinks.flatMap((sink: SplitSink, at) => (isFile(sink) ? [] : [{ sink, at }]));
    ends = SessionEndpoint.all([
      () => new SessionEndpoint('source', from, true, false),
      ...streams.map(({ sink, at }) => {
        const to = sink instanceof Pipe ? sink.writeFd : (sink as Socket | number);
        return () => new SessionEndpoint(`sinks[${at}]`, to, false, true);
      }),
    ]);
    const [sourceEnd, ...sinkEnds] = ends as [SessionEndpoint, ...SessionEndpoint[]];
    const opening = openAll(
      named.map(async (name) => {
        if (name === undefined) return undefined;
        if ('path' in name) return open((request) => engine().openOutput(request, name.path, 0o666));
        return open((request) => engine().openSink(request, { fd: name.fd, append: false }));
      }),
    );
    files = await within(
      opening,
      { ...bounds, reason: 'a file is not opened: its storage is too slow or hangs' },
      () => {
        opening.then(
          (tokens) => {
            for (const token of tokens) if (token !== undefined) engine().release(token);
          },
          () => {},
        );
      },
    );
    const ready = Promise.all(ends.map((one) => one.ready()));
    await within(ready, { ...bounds, reason: NOT_READY }, () => {});
    const tokens = [...files];
    for (const [number, { at }] of streams.entries()) tokens[at] = sinkEnds[number]?.token;
    // One that can say itself how much it takes needs no pipe of its own.
    const last = policy === 'block' ? (streams.at(-1)?.at ?? -1) : -1;
    const order = sinks.map((_, at) => at).filter((at) => at !== last);
    let cancel = () => {};
    const joined = spliceSockets(
      settings,
      () => {
        const initialUp = sourceEnd.takeBuffered();
        return {
          client: sourceEnd.token,
          ...(last >= 0 ? { target: tokens[last] as number } : {}),
          ...(initialUp ? { initialUp } : {}),
          oneWay: true,
          mirrors: order.map((at) => tokens[at] as number),
          policy,
        };
      },
      (stop) => {
        cancel = stop;
        for (const one of ends) one.watch(stop);
        signal?.addEventListener('abort', stop, { once: true });
        if (signal?.aborted) stop();
      },
    );
    let feedingFailed: ZerosendError | undefined;
    if (isFile(source) && feeder !== undefined) {
      fed = sendFile(feeder.writeFd, source.file, { signal: feeding.signal })
        .catch((error: ZerosendError) => {
          feedingFailed = Object.assign(error, { side: 'source' });
          cancel();
        })
        .finally(() => feeder.close('write'));
    }
    const finished = (async (): Promise<SplitterResult> => {
      let complete = false;
      try {
        const report = await joined;
        const result = resultOf(report, order, last, performance.now() - started);
        const side = (endpoint: number) =>
          endpoint === -2 ? 'source' : `sinks[${endpoint === -1 ? last : order[endpoint]}]`;
        const closed = ends.find((one) => one.closed);
        const failed = feedingFailed ?? failureOf(report, side, options, closed);
        if (failed !== undefined) throw Object.assign(failed, { bytes: result.bytes, sinks: result.sinks });
        complete = true;
        return result;
      } finally {
        signal?.removeEventListener('abort', cancel);
        feeding.abort();
        await fed;
        if (end && !complete) for (const { socket } of sinkEnds) if (socket !== undefined) reset(socket);
        giveBack();
        if (end) endAll(sinks);
      }
    })();
    // Who does not wait for the end does not want to hear of its failure either.
    finished.catch(() => {});
    return { finished, close: () => cancel() };
  } catch (error) {
    giveBack();
    throw error;
  }
}

function isFile(value: SplitSource | SplitSink): value is { file: FileSource } {
  return typeof value === 'object' && value !== null && 'file' in value;
}

function resultOf(report: RelayReport, order: number[], last: number, durationMs: number): SplitterResult {
  const sinks: SplitterResult['sinks'] = [];
  if (last >= 0) sinks[last] = { bytes: report.up, dropped: 0 };
  for (const [at, { bytes, dropped, failure: failed }] of report.mirrors.entries()) {
    const number = order[at] as number;
    sinks[number] = { bytes, dropped, ...(failed ? { error: systemError(`sinks[${number}]`, failed) } : {}) };
  }
  return { bytes: report.up, sinks, durationMs };
}

function endAll(sinks: readonly SplitSink[]): void {
  for (const sink of sinks) {
    if (sink instanceof Pipe) sink.close('write');
    else if (typeof sink === 'object' && 'end' in sink && !sink.destroyed) sink.end();
  }
}
