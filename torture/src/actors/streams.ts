/**
 * Streams through a relay: a client and an upstream server that check each other's bytes. A stream starts with a head of 64 bytes that
 * describes both directions.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Random } from '../random.js';
import { make, RECORD, verify } from '../records.js';
import type { Report } from '../report.js';

export const HEAD = 64;

/** The behavior of the two sides. */
export interface Plan {
  /** Records to the upstream have the id `2 * id`, those to the client `2 * id + 1`. */
  id: number;
  up: number;
  down: number;
  /**
   * `both`: both directions at once. `answer`: first all bytes up, then all bytes down. `early`: the upstream reads the head, responds,
   * and closes with unread bytes. `resetUp`, `resetDown`: the client or the upstream resets after half of its bytes.
   */
  mode: 'both' | 'answer' | 'early' | 'resetUp' | 'resetDown';
  /** Pauses of the readers. */
  slowClient: boolean;
  slowUpstream: boolean;
}

/** How a side saw the end of the other one. */
type Ended = 'end' | 'reset' | undefined;

/** The bytes that one side has received. */
interface Side {
  received: number;
  ended: Ended;
  bad: string | undefined;
}

export interface Stream {
  plan: Plan;
  client: Side;
  upstream: Side;
  /** Both directions were complete. */
  complete: boolean;
  /** Bytes written by the client, with the head. */
  written: number;
}

let lastStream = 1000;

export function randomPlan(random: Random): Plan {
  const mode = random.pick(['both', 'both', 'answer', 'answer', 'early', 'resetUp', 'resetDown'] as const);
  const length = () => random.pick([0, 1, 100, 1000, 16_384, 65_536, 300_000, random.int(1, 2_000_000)]);
  return {
    id: ++lastStream,
    up: mode === 'early' ? random.int(2000, 60_000) : length(),
    // A reset discards bytes that were not acknowledged.
    down: mode === 'early' ? random.int(1, 1000) : length(),
    mode,
    slowClient: random.chance(0.15),
    slowUpstream: random.chance(0.15),
  };
}

const headOf = (plan: Plan) => {
  const { id, up, down, mode, slowUpstream } = plan;
  return Buffer.from(`${id} ${up} ${down} ${mode} ${slowUpstream ? 1 : 0}`.padEnd(HEAD - 1).concat('\n'));
};

/** The upstream server. Its port does not change; it records what it receives in the stream of that id. */
export class Upstream {
  readonly #server: Server;
  readonly streams = new Map<number, Stream>();
  readonly #random: Random;

  private constructor(random: Random) {
    this.#random = random;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => void this.#serve(socket));
  }

  static async listen(random: Random, path?: string): Promise<Upstream> {
    const upstream = new Upstream(random);
    if (path === undefined) upstream.#server.listen(0, '127.0.0.1');
    else upstream.#server.listen(path);
    await once(upstream.#server, 'listening');
    return upstream;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    this.#server.close();
  }

  async #serve(socket: Socket): Promise<void> {
    let failed = false;
    socket.on('error', () => {
      failed = true;
    });
    const head = await readHead(socket);
    const stream = head === undefined ? undefined : this.streams.get(Number(head.split(' ')[0]));
    if (stream === undefined) {
      socket.destroy();
      return;
    }
    const { plan, upstream: side } = stream;
    if (plan.mode === 'early') {
      socket.pause();
      // Unread bytes arrive meanwhile, so closing sends a reset.
      await sleep(this.#random.int(0, 30));
      socket.write(make(plan.id * 2 + 1, 1, plan.down), () => socket.destroy());
      return;
    }
    const receiving = receive(socket, side, plan.id * 2, plan.up, plan.slowUpstream, this.#random);
    if (plan.mode === 'answer') await receiving;
    if (failed || socket.destroyed) return void socket.destroy();
    if (plan.mode === 'resetDown') {
      await write(socket, make(plan.id * 2 + 1, 1, Math.floor(plan.down / 2)), this.#random);
      await sleep(this.#random.int(0, 20));
      socket.resetAndDestroy();
      return;
    }
    await write(socket, make(plan.id * 2 + 1, 1, plan.down), this.#random);
    socket.end();
    await receiving;
    if (failed) socket.destroy();
  }
}

async function readHead(socket: Socket): Promise<string | undefined> {
  while (true) {
    const head = socket.read(HEAD) as Buffer | null;
    if (head !== null) return head.length === HEAD ? head.toString('latin1') : undefined;
    if (socket.readableEnded || socket.destroyed) return undefined;
    await Promise.race(['readable', 'end', 'close', 'error'].map((event) => onceQuietly(socket, event)));
  }
}

const onceQuietly = (socket: Socket, event: string) =>
  new Promise<void>((resolve) => socket.once(event, () => resolve()));

/**
 * Called for a connected socket. The returned function gives the state of the connection (the kernel's number in hexadecimal) when Node
 * reported an end; undefined when it did not. libuv reports a reset as an end when it arrives with the last bytes (POLLHUP after a
 * partial read). A connection that was reset does not exist any more; one that has ended is in CLOSE-WAIT or TIME-WAIT.
 */
export function watchEnd(socket: Socket): () => string | undefined {
  // The kernel does not report the peer of a connection that does not exist any more.
  const { localPort, remotePort } = socket;
  if (remotePort === undefined) return () => undefined;
  return () => {
    const [local, remote] = [localPort, remotePort].map(
      (port = 0) => `:${port.toString(16).toUpperCase().padStart(4, '0')}`,
    ) as [string, string];
    for (const line of readFileSync('/proc/self/net/tcp', 'utf8').split('\n')) {
      const [, from = '', to = '', state] = line.trim().split(/\s+/);
      if (from.endsWith(local) && to.endsWith(remote)) return state;
    }
    return undefined;
  };
}

/** Reads and checks until the other side ends. */
function receive(
  socket: Socket,
  side: Side,
  id: number,
  expected: number,
  slow: boolean,
  random: Random,
): Promise<void> {
  return new Promise((resolve) => {
    const end = (how: Ended) => {
      side.ended ??= how;
      resolve();
    };
    socket.on('data', (chunk: Buffer) => {
      const { bad } = verify(chunk, id, side.received);
      if (bad !== undefined) side.bad ??= `at ${bad.offset}: ${bad.got}`;
      side.received += chunk.length;
      if (slow) {
        socket.pause();
        setTimeout(() => socket.resume(), random.int(1, 15));
      }
    });
    let stateOf: () => string | undefined = () => '';
    const watch = () => {
      stateOf = watchEnd(socket);
    };
    if (socket.connecting) socket.once('connect', watch);
    else watch();
    socket.on('end', () => end(side.received < expected && stateOf() === undefined ? 'reset' : 'end'));
    socket.on('error', () => end('reset'));
    socket.on('close', () => end('reset'));
    if (socket.destroyed) end('reset');
  });
}

/** Writes in chunks of random length. */
async function write(socket: Socket, bytes: Buffer, random: Random): Promise<void> {
  for (let at = 0; at < bytes.length && socket.writable; ) {
    const piece = bytes.subarray(at, at + random.pick([RECORD, 1000, 65_536, 1 << 20]));
    at += piece.length;
    if (!socket.write(piece)) {
      await Promise.race([onceQuietly(socket, 'drain'), onceQuietly(socket, 'close')]);
    } else if (random.chance(0.05)) await sleep(random.int(0, 3));
  }
}

/** Maximum of milliseconds for a stream. A hanging disk of a mirror must not delay it. */
const STREAM_TIMEOUT_MS = 60_000;

/** Runs one stream through `port` to the upstream and checks it. Undefined when no connection could be made. */
export async function runStream(
  port: number,
  upstream: Upstream,
  plan: Plan,
  random: Random,
  report: Report,
  area: string,
  excused: () => boolean,
): Promise<Stream> {
  const stream: Stream = {
    plan,
    client: { received: 0, ended: undefined, bad: undefined },
    upstream: { received: 0, ended: undefined, bad: undefined },
    complete: false,
    written: 0,
  };
  upstream.streams.set(plan.id, stream);
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const { client } = stream;
  const receiving = receive(socket, client, plan.id * 2 + 1, plan.down, plan.slowClient, random);
  const sent = plan.mode === 'resetUp' ? Math.floor(plan.up / 2) : plan.up;
  stream.written = HEAD + sent;
  socket.write(headOf(plan));
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    socket.destroy();
  }, STREAM_TIMEOUT_MS);
  await write(socket, make(plan.id * 2, 1, sent), random);
  if (plan.mode === 'resetUp') {
    await sleep(random.int(0, 20));
    socket.resetAndDestroy();
  } else {
    if (plan.mode !== 'early') socket.end();
    await receiving;
    // The bytes to the client are complete; those to the upstream may not have arrived yet.
    const end = performance.now() + STREAM_TIMEOUT_MS;
    const settled = () => plan.mode === 'early' || stream.upstream.ended !== undefined;
    while (!settled() && client.ended === 'end' && performance.now() < end) await sleep(5);
    socket.destroy();
  }
  clearTimeout(timer);
  judge(stream, timedOut, report, area, excused);
  upstream.streams.delete(plan.id);
  return stream;
}

function judge(stream: Stream, timedOut: boolean, report: Report, area: string, excused: () => boolean): void {
  const { plan, client, upstream } = stream;
  const describe = () => JSON.stringify({ plan, client, upstream });
  report.count(area, `streams: ${plan.mode}`);
  report.count(area, 'bytes verified', client.received + upstream.received);
  if (client.bad !== undefined || upstream.bad !== undefined) report.fault(area, 'wrong bytes', describe());
  if (timedOut) {
    if (!excused()) report.fault(area, 'a stream hangs', describe());
    return;
  }
  if (excused()) return;
  switch (plan.mode) {
    case 'both':
    case 'answer':
      stream.complete =
        client.received === plan.down &&
        client.ended === 'end' &&
        upstream.received === plan.up &&
        upstream.ended === 'end';
      if (!stream.complete) report.fault(area, 'a stream is not complete', describe());
      break;
    case 'early':
      if (client.received !== plan.down) report.fault(area, 'a response before a reset was lost', describe());
      break;
    case 'resetDown':
      if (client.ended === 'end') report.fault(area, 'a reset of the upstream looks like an end', describe());
      break;
    case 'resetUp':
      if (upstream.ended === 'end') report.fault(area, 'a reset of the client looks like an end', describe());
      break;
  }
}
