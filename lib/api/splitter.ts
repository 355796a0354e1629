/** `createSplitter`: one source, several sinks, by tee(2). */
import type { Socket } from 'node:net';
import type { RelayReport } from '#native';
import { within } from '../runtime/bounds.js';
import { engine, requestHandle } from '../runtime/engine.js';
import { openAll } from '../runtime/output.js';
import {
  type RelaySessionOptions,
  readSessionOptions,
  sessionError,
  spliceSockets,
  systemError,
} from '../runtime/relay-session.js';
import { reset } from '../runtime/reset.js';
import { NOT_READY, SessionEndpoint } from '../runtime/session-endpoint.js';
import { aborted, failure, invalid, type ZerosendError } from '../util/errors.js';
import { type FileSource, nameFile, parseEnum } from '../util/options.js';
import { Pipe } from './pipe.js';
import { sendFile } from './send-file.js';

/** A plain `net.Socket`, a {@link Pipe}, a descriptor of a socket or pipe, or a file. */
export type SplitSource = Socket | Pipe | number | { file: FileSource };

/**
 * A plain `net.Socket`, a {@link Pipe}, a descriptor of a socket or pipe, or a file. A path is created or truncated, then appended
 * to; a FIFO must have a reader; a file descriptor is written to from its position on.
 */
export type SplitSink = Socket | Pipe | number | { file: FileSource };

export interface SplitterOptions extends RelaySessionOptions {
  /**
   * What happens to bytes that a sink does not accept in time, beyond the 256 KiB of its pipe (512 KiB for a file). `'block'`, the
   * default: the source waits for the slowest sink, and the splitter fails when a sink fails. `'drop'`: the sink misses them, which
   * is counted; a socket or pipe that fails gets no more bytes, a file gets those that it can store later.
   */
  policy?: 'block' | 'drop' | undefined;
  /** Whether to end sockets and {@link Pipe}s among the sinks at the end, or to reset sockets after a failure. Default true. */
  end?: boolean | undefined;
}

export interface SplitterResult {
  /** Bytes of the source. */
  bytes: number;
  /**
   * For each sink the bytes written, the bytes missed (including those that were being written to a file when the splitter ended),
   * and the last error.
   */
  sinks: Array<{ bytes: number; dropped: number; error?: ZerosendError }>;
  /** Wall time in milliseconds. */
  durationMs: number;
}

export interface Splitter {
  /**
   * Resolves when the source has ended and all bytes are written. Rejects with the name of an errno, `ERR_ZEROSEND_TIMEOUT`,
   * `ERR_ZEROSEND_CLOSED` or `ABORT_ERR`. `error.side` names what has failed (`'source'`, `'sinks[1]'`); `error.bytes` and
   * `error.sinks` are the counts until then.
   */
  readonly finished: Promise<SplitterResult>;
  /** Ends the splitter at once: `finished` rejects with `ERR_ZEROSEND_CLOSED`. */
  close(): void;
}

const MAX_SINKS = 14;

/**
 * Copies a stream to several sinks on a native thread, without a copy in user space.
 *
 * Node neither reads the source nor writes to the sinks meanwhile. Bytes that Node has already read from the source come first.
 *
 * Rejects with `ERR_ZEROSEND_INVALID_ARGUMENT` for invalid arguments (also for a source socket with `setEncoding`, and that of an
 * HTTP request), `ERR_ZEROSEND_BUSY` for a source that another operation reads, and with the name of an errno for files that cannot
 * be opened. The source is unchanged then.
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
  if (sinks.length > MAX_SINKS) {
    throw failure('ERR_ZEROSEND_LIMIT', `too many sinks: ${sinks.length}; use ${MAX_SINKS} at most`);
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
  let endpoints: SessionEndpoint[] = [];
  let files: Array<number | undefined> = [];
  const release = () => {
    for (const endpoint of endpoints) endpoint.release();
    releaseTokens(files);
    feeder?.close();
  };
  try {
    let fed: Promise<unknown> = Promise.resolve();
    const from = feeder?.readFd ?? (source instanceof Pipe ? source.readFd : (source as Socket | number));
    const streams = sinks.flatMap((sink: SplitSink, at) => (isFile(sink) ? [] : [{ sink, at }]));
    endpoints = SessionEndpoint.all([
      () => new SessionEndpoint('source', from, true, false),
      ...streams.map(({ sink, at }) => {
        const to = sink instanceof Pipe ? sink.writeFd : (sink as Socket | number);
        return () => new SessionEndpoint(`sinks[${at}]`, to, false, true);
      }),
    ]);
    const [sourceEndpoint, ...sinkEndpoints] = endpoints as [SessionEndpoint, ...SessionEndpoint[]];
    const opening = openFiles(named);
    files = await within(opening, { ...bounds, reason: OPENING }, () => {
      opening.then(releaseTokens, () => {});
    });
    const ready = Promise.all(endpoints.map((endpoint) => endpoint.ready()));
    await within(ready, { ...bounds, reason: NOT_READY }, () => {});
    const handles = [...files];
    for (const [number, { at }] of streams.entries()) handles[at] = sinkEndpoints[number]?.handle;
    // With 'block' the last stream is the target of the session: it needs no copy in another pipe.
    const target = policy === 'block' ? (streams.at(-1)?.at ?? -1) : -1;
    const order = sinks.map((_, at) => at).filter((at) => at !== target);
    let cancel = () => {};
    const session = spliceSockets(
      settings,
      () => {
        const initialUp = sourceEndpoint.takeBuffered();
        return {
          client: sourceEndpoint.handle,
          ...(target >= 0 ? { target: handles[target] as number } : {}),
          ...(initialUp ? { initialUp } : {}),
          oneWay: true,
          mirrors: order.map((at) => handles[at] as number),
          policy,
        };
      },
      (stop) => {
        cancel = stop;
        for (const endpoint of endpoints) endpoint.onClosed(stop);
        signal?.addEventListener('abort', stop, { once: true });
        if (signal?.aborted) stop();
      },
    );
    let feedError: ZerosendError | undefined;
    if (isFile(source) && feeder !== undefined) {
      fed = sendFile(feeder.writeFd, source.file, { signal: feeding.signal })
        .catch((error: ZerosendError) => {
          feedError = Object.assign(error, { side: 'source' });
          cancel();
        })
        .finally(() => feeder.close('write'));
    }
    const finished = (async (): Promise<SplitterResult> => {
      let complete = false;
      try {
        const report = await session;
        const result = resultOf(report, order, target, performance.now() - started);
        const nameOf = (endpoint: number) =>
          endpoint === -2 ? 'source' : `sinks[${endpoint === -1 ? target : order[endpoint]}]`;
        const closed = endpoints.find((endpoint) => endpoint.closed);
        const error = feedError ?? sessionError(report, nameOf, options, closed);
        if (error !== undefined) throw Object.assign(error, { bytes: result.bytes, sinks: result.sinks });
        complete = true;
        return result;
      } finally {
        signal?.removeEventListener('abort', cancel);
        feeding.abort();
        await fed;
        if (end && !complete) for (const { socket } of sinkEndpoints) if (socket !== undefined) reset(socket);
        release();
        if (end) endAll(sinks);
      }
    })();
    // A caller that does not use `finished` gets no unhandled rejection.
    finished.catch(() => {});
    return { finished, close: () => cancel() };
  } catch (error) {
    release();
    throw error;
  }
}

const OPENING = 'a file was not opened: its storage is slow or hangs';

function isFile(value: SplitSource | SplitSink): value is { file: FileSource } {
  return typeof value === 'object' && value !== null && 'file' in value;
}

/** Opens the files among the sinks; the others stay `undefined`. */
function openFiles(named: Array<{ path: string } | { fd: number } | undefined>): Promise<Array<number | undefined>> {
  return openAll(
    named.map(async (name) => {
      if (name === undefined) return undefined;
      if ('path' in name) return requestHandle((number) => engine().openOutput(number, name.path, 0o666));
      return requestHandle((number) => engine().openSink(number, { fd: name.fd, append: false }));
    }),
  );
}

function releaseTokens(handles: Array<number | undefined>): void {
  for (const handle of handles) if (handle !== undefined) engine().release(handle);
}

function resultOf(report: RelayReport, order: number[], target: number, durationMs: number): SplitterResult {
  const sinks: SplitterResult['sinks'] = [];
  if (target >= 0) sinks[target] = { bytes: report.up, dropped: 0 };
  for (const [at, { bytes, dropped, failure: error }] of report.mirrors.entries()) {
    const number = order[at] as number;
    sinks[number] = { bytes, dropped, ...(error ? { error: systemError(`sinks[${number}]`, error) } : {}) };
  }
  return { bytes: report.up, sinks, durationMs };
}

function endAll(sinks: readonly SplitSink[]): void {
  for (const sink of sinks) {
    if (sink instanceof Pipe) sink.close('write');
    else if (typeof sink === 'object' && 'end' in sink && !sink.destroyed) sink.end();
  }
}
