/** `relay`, `sendFile`, `receiveFile` and worker threads, in one process. */
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { PACKAGE_ROOT } from '../../../lib/util/package.js';
import { randomPlan, runStream, Upstream, watchEnd } from '../actors/streams.js';
import { Child } from '../child.js';
import type { Moment, Transfer, TransferOutcome } from '../children/sockets.js';
import { Tracked } from '../files.js';
import { excess, type Held, measure } from '../measure.js';
import type { Random } from '../random.js';
import { make, verify } from '../records.js';
import type { Report } from '../report.js';
import type { Area } from '../run.js';
import type { World } from '../world.js';

const STREAMS = 8;
const TRANSFERS = 8;
const HEAD = 16;
const METHODS = ['auto', 'sendfile', 'splice', 'mmap', 'read-write', 'vmsplice'] as const;
const WORKERS = ['ring', 'ring writer', 'transfer', 'server', 'proxy', 'cache'] as const;

/** The received bytes of a transfer. */
interface Arrival {
  chunks: Buffer[];
  ended: 'end' | 'reset' | undefined;
  /** The state of the connection at its end, as reported by the kernel. */
  state: string | undefined;
  slow: boolean;
}

export class SocketsArea implements Area {
  readonly #world: World;
  readonly #report: Report;
  readonly #random: Random;
  readonly #directory: string;
  #child: Child | undefined;
  #base: Held | undefined;
  #upstream: Upstream | undefined;
  #relays: Partial<Record<Moment, number>> = {};
  #uploads: number[] = [];
  #sink: Server | undefined;
  readonly #arrivals = new Map<string, Arrival>();
  #last = 0;

  constructor(world: World, report: Report, random: Random) {
    this.#world = world;
    this.#report = report;
    this.#random = random;
    this.#directory = join(world.directory, `sockets-${random.int(0, 1e9)}`);
    mkdirSync(this.#directory);
  }

  async start(): Promise<void> {
    this.#upstream = await Upstream.listen(this.#random.fork());
    const child = Child.start(this.#report, 'sockets', 'sockets');
    this.#child = child;
    const method = this.#random.pick(['auto', 'splice', 'read-write'] as const);
    this.#relays = await child.call('relay', { target: this.#upstream.port, method });
    this.#uploads = await child.call('upload');
    this.#sink = createServer({ allowHalfOpen: true }, (socket) => {
      let arrival: Arrival | undefined;
      const stateOf = watchEnd(socket);
      let before = Buffer.alloc(0);
      socket.on('data', (chunk: Buffer) => {
        if (arrival === undefined) {
          before = Buffer.concat([before, chunk]);
          if (before.length < HEAD) return;
          arrival = this.#arrivals.get(before.subarray(0, HEAD).toString('latin1').trim());
          arrival?.chunks.push(before.subarray(HEAD));
        } else arrival.chunks.push(chunk);
        if (arrival?.slow) {
          socket.pause();
          setTimeout(() => socket.resume(), 10);
        }
      });
      const end = (how: 'end' | 'reset') => {
        if (arrival !== undefined) arrival.ended ??= how;
        socket.destroy();
      };
      socket.on('end', () => {
        const state = stateOf();
        if (arrival !== undefined) arrival.state = state;
        end(state === undefined ? 'reset' : 'end');
      });
      socket.on('error', () => end('reset'));
      socket.on('close', () => end('reset'));
    }).listen(0, '127.0.0.1');
    await once(this.#sink, 'listening');
    this.#report.log(`sockets: relays by ${method}`);
  }

  async round(signal: AbortSignal): Promise<void> {
    const actors: Promise<void>[] = [];
    const until = async (act: (random: Random) => Promise<void>) => {
      const random = this.#random.fork();
      while (!signal.aborted && this.#child?.running) await act(random);
    };
    for (let at = 0; at < STREAMS; at++) actors.push(until((random) => this.#stream(random)));
    for (let at = 0; at < TRANSFERS; at++) actors.push(until((random) => this.#transfer(random)));
    for (let at = 0; at < 2; at++) actors.push(until((random) => this.#upload(random)));
    actors.push(
      until((random) => this.#cut(random)),
      until((random) => this.#worker(random)),
    );
    await Promise.all(actors);
  }

  async #stream(random: Random): Promise<void> {
    const [when, port] = random.pick(Object.entries(this.#relays));
    // A reset before the relay starts is seen by Node only.
    const plan = randomPlan(random);
    if (plan.mode === 'resetUp' || plan.mode === 'resetDown' || plan.mode === 'early') plan.mode = 'both';
    await runStream(
      port,
      this.#upstream!,
      plan,
      random,
      this.#report,
      `relay ${when}`,
      () => this.#child?.running !== true,
    );
  }

  /** A file to the sink: complete, or visibly truncated. */
  async #transfer(random: Random): Promise<void> {
    const { fuse, files } = this.#world;
    const onFuse = fuse !== undefined && random.chance(0.15);
    const file = random.pick(
      (onFuse ? fuse.files : files).filter(({ kind }) => kind === 'steady' || kind === 'replace'),
    );
    const before = file.snapshot();
    const offset = random.chance(0.3) ? random.int(0, file.size) : 0;
    const cancelAfter = random.chance(0.2) ? random.int(0, 100) : undefined;
    const transfer: Omit<Transfer, 'port' | 'head'> = {
      path: onFuse ? join(this.#world.root, file.url) : file.path,
      method: random.pick(METHODS),
      // A descriptor of a file on FUSE would be opened by the child, which may hang.
      from: onFuse ? 'path' : random.pick(['path', 'path', 'descriptor', 'cache'] as const),
      offset,
      ...(cancelAfter === undefined ? {} : { cancelAfter }),
    };
    const begun = performance.now();
    const { outcome, arrival } = await this.#send(transfer, random.chance(0.2));
    const excused = onFuse && fuse.trouble.since(begun, 1000);
    const describe = () =>
      JSON.stringify({ ...transfer, ...outcome, arrived: sizeOf(arrival), ended: arrival.ended, state: arrival.state });
    const { bad, min, max } = verify(Buffer.concat(arrival.chunks), file.id, offset);
    this.#report.count('sendFile', 'bytes verified', sizeOf(arrival));
    if (bad !== undefined) this.#report.fault('sendFile', 'wrong bytes', `at ${bad.offset}: ${bad.got}; ${describe()}`);
    if (min !== undefined && (min !== max || min < before.complete)) {
      this.#report.fault('sendFile', 'stale', `versions ${min} to ${max} instead of ${before.complete}; ${describe()}`);
    }
    this.#judge(outcome, arrival, offset, describe);
    const outOfRange = outcome.error === 'ERR_ZEROSEND_OUT_OF_RANGE' && file.kind === 'replace';
    if (outcome.error !== undefined && cancelAfter === undefined && !excused && !outOfRange) {
      this.#report.fault('sendFile', `fails with ${outcome.error}`, describe());
    }
  }

  #judge(outcome: TransferOutcome, arrival: Arrival, _offset: number, describe: () => string): void {
    this.#report.count('sendFile', outcome.error ?? 'sent');
    if (outcome.error === undefined) {
      if (sizeOf(arrival) !== outcome.bytes - HEAD || arrival.ended !== 'end')
        this.#report.fault('sendFile', 'received bytes differ from the file', describe());
    } else if (arrival.ended === 'end' && sizeOf(arrival) > 0) {
      this.#report.fault('sendFile', 'a failed transfer looks complete', describe());
    }
    if (outcome.lateBy !== undefined && outcome.lateBy > 4000) {
      this.#report.fault('sendFile', 'an abort was delayed', describe());
    }
  }

  async #send(
    transfer: Omit<Transfer, 'port' | 'head'>,
    slow: boolean,
  ): Promise<{ outcome: TransferOutcome; arrival: Arrival }> {
    const id = `t${++this.#last}`;
    const arrival: Arrival = { chunks: [], ended: undefined, state: undefined, slow };
    this.#arrivals.set(id, arrival);
    const { port } = this.#sink!.address() as AddressInfo;
    try {
      const outcome = await this.#child!.call<TransferOutcome>('send', { ...transfer, port, head: id.padEnd(HEAD) });
      const end = performance.now() + 30_000;
      while (arrival.ended === undefined && performance.now() < end && outcome.bytes > 0) await sleep(5);
      return { outcome, arrival };
    } catch {
      return { outcome: { bytes: 0, error: 'child' }, arrival };
    } finally {
      this.#arrivals.delete(id);
    }
  }

  /** A large file that is truncated while it is sent to a slow receiver. */
  async #cut(random: Random): Promise<void> {
    const file = new Tracked('resize', join(this.#directory, `cut-${++this.#last}`), '');
    const size = 40_000_000;
    writeFileSync(file.path, make(file.id, file.begin(size), size));
    const rest = random.pick([size - 1, size - 5000, 15_000_000]);
    setTimeout(() => truncateSync(file.path, rest), random.int(5, 60));
    const transfer = {
      path: file.path,
      method: random.pick(METHODS),
      from: random.pick(['path', 'descriptor'] as const),
    };
    const { outcome, arrival } = await this.#send(transfer, true);
    await sleep(60);
    rmSync(file.path);
    const describe = () =>
      JSON.stringify({
        ...transfer,
        ...outcome,
        rest,
        arrived: sizeOf(arrival),
        ended: arrival.ended,
        state: arrival.state,
      });
    const { bad } = verify(Buffer.concat(arrival.chunks), file.id);
    // Pages passed by reference show later changes of the file.
    if (bad !== undefined && (bad.offset < Math.floor(rest / 4096) * 4096 || outcome.error === undefined)) {
      this.#report.fault('sendFile', 'wrong bytes of a truncated file', `at ${bad.offset}: ${bad.got}; ${describe()}`);
    }
    this.#judge(outcome, arrival, 0, describe);
  }

  async #upload(random: Random): Promise<void> {
    const id = ++this.#last;
    const path = join(this.#directory, `upload-${id}`);
    const length = random.pick([1, 100, 65_536, 300_000, random.int(1, 3_000_000)]);
    const socket = connect({ port: random.pick(this.#uploads), host: '127.0.0.1' });
    let answer = '';
    socket.setEncoding('latin1').on('data', (text: string) => {
      answer += text;
    });
    socket.on('error', () => {});
    socket.write(`${path} ${length}`.padEnd(256));
    const bytes = make(id, 1, length);
    for (let at = 0; at < length; ) {
      const piece = bytes.subarray(at, at + random.pick([100, 65_536, 1 << 20]));
      at += piece.length;
      socket.write(piece);
      if (random.chance(0.1)) await sleep(random.int(0, 3));
    }
    await Promise.race([once(socket, 'close'), sleep(30_000)]).catch(() => {});
    socket.destroy();
    this.#report.count('receiveFile', 'uploads');
    if (this.#child?.running !== true) return;
    if (answer !== String(length))
      this.#report.fault('receiveFile', 'an upload failed', `'${answer}' instead of ${length}`);
    else if (!existsSync(path) || !readFileSync(path).equals(bytes))
      this.#report.fault('receiveFile', 'wrong bytes', `${path}, ${length} bytes`);
    rmSync(path, { force: true });
  }

  async #worker(random: Random): Promise<void> {
    await sleep(random.int(100, 500));
    const what = random.pick(WORKERS);
    const root = process.env.ZEROSEND_UNDER_TEST ?? PACKAGE_ROOT;
    const path = this.#world.files.find(({ size }) => size === 5_000_000)?.path;
    try {
      await this.#child?.call('worker', { what, ms: random.int(50, 600), root, path });
      this.#report.count('workers', what);
    } catch (error) {
      this.#report.fault('workers', 'fails', `${what}: ${(error as Error).message}`);
    }
  }

  async check(): Promise<void> {
    const child = this.#child;
    if (child?.running !== true) return;
    const end = performance.now() + 20_000;
    let problem: string | undefined;
    let held: Held | undefined;
    do {
      await child.call('collect');
      held = measure(child.pid);
      if (held === undefined) return;
      problem =
        this.#base === undefined
          ? held.closeWait > 0
            ? `${held.closeWait} sockets in CLOSE-WAIT`
            : undefined
          : excess(this.#base, held);
      if (problem === undefined) break;
      await sleep(500);
    } while (performance.now() < end);
    if (problem !== undefined) this.#report.fault('sockets', 'resources leaked in a round', problem);
    this.#base ??= held;
  }

  async end(): Promise<void> {
    await this.#child?.end();
    this.#upstream?.close();
    this.#sink?.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

const sizeOf = ({ chunks }: Arrival) => chunks.reduce((sum, { length }) => sum + length, 0);
