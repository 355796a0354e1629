/** HTTP/1.1 on a socket, well-behaved or not. */
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Random } from './random.js';

export interface Request {
  method: 'GET' | 'HEAD';
  path: string;
  headers: Record<string, string>;
  /** Called when the last byte of the head is about to be written. */
  onSend?: () => void;
}

export interface Response {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
  /** The body has the announced length. */
  whole: boolean;
  /** Time of the last byte. */
  at: number;
}

/** How a connection ended. */
export type Ending = 'client' | 'end' | 'reset' | 'timeout' | 'refused';

export interface Outcome {
  responses: Response[];
  ending: Ending;
  /** Bytes that are not a response. */
  garbage: Buffer;
  /** This side has closed the connection during a response. */
  aborted: boolean;
}

export interface Manners {
  /** How heads are divided into writes. */
  heads: 'whole' | 'bytes' | 'pieces';
  /** All requests at once, or each after the previous response. */
  pipelined: boolean;
  /** Reads at once, or with pauses. */
  reading: 'fast' | 'slow';
  /** Bytes after which the connection is destroyed or reset. */
  abortAfter: number | undefined;
  abort: 'destroy' | 'reset';
  /** Half-close after the last request. */
  halfClose: boolean;
  /** Bytes sent after the last request. */
  trailing: string;
}

export const POLITE: Manners = {
  heads: 'whole',
  pipelined: false,
  reading: 'fast',
  abortAfter: undefined,
  abort: 'destroy',
  halfClose: false,
  trailing: '',
};

export function randomManners(random: Random): Manners {
  return {
    heads: random.pick(['whole', 'whole', 'whole', 'bytes', 'pieces']),
    pipelined: random.chance(0.4),
    reading: random.chance(0.15) ? 'slow' : 'fast',
    abortAfter: random.chance(0.1) ? random.int(0, 500_000) : undefined,
    abort: random.pick(['destroy', 'reset']),
    halfClose: random.chance(0.15),
    trailing: '',
  };
}

const serialize = ({ method, path, headers }: Request): string =>
  `${method} ${path} HTTP/1.1\r\n${Object.entries({ Host: 'torture', ...headers })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n`;

/** Sends requests over a new connection. Resolves after all responses, after the end of the connection, or after `ms`. */
export async function exchange(
  port: number,
  requests: readonly Request[],
  manners: Manners,
  random: Random,
  ms: number,
): Promise<Outcome> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const reader = new Reader(requests);
  let ending: Ending | undefined;
  let aborted = false;
  let received = 0;
  const finished = new Promise<Ending>((resolve) => {
    const end = (how: Ending) => {
      ending ??= how;
      resolve(ending);
    };
    const timer = setTimeout(() => end('timeout'), ms);
    void finishedCleanup(socket, () => clearTimeout(timer));
    socket.on('error', (error: NodeJS.ErrnoException) => end(error.code === 'ECONNREFUSED' ? 'refused' : 'reset'));
    socket.on('end', () => end('end'));
    socket.on('close', () => end('reset'));
    socket.on('data', (chunk: Buffer) => {
      received += chunk.length;
      reader.push(chunk);
      if (manners.abortAfter !== undefined && received >= manners.abortAfter) {
        aborted = true;
        end('client');
      } else if (reader.done) end('client');
      else if (manners.reading === 'slow') {
        socket.pause();
        setTimeout(() => socket.resume(), random.int(1, 20));
      }
    });
  });
  await Promise.race([write(socket, requests, manners, random, reader, finished), finished]);
  const how = await finished;
  reader.finish(how);
  if (aborted && manners.abort === 'reset') socket.resetAndDestroy();
  else socket.destroy();
  return { responses: reader.responses, ending: how, garbage: reader.rest, aborted };
}

async function finishedCleanup(socket: Socket, clean: () => void): Promise<void> {
  socket.once('close', clean);
}

async function write(
  socket: Socket,
  requests: readonly Request[],
  manners: Manners,
  random: Random,
  reader: Reader,
  finished: Promise<unknown>,
): Promise<void> {
  let over = false;
  void finished.then(() => {
    over = true;
  });
  if (manners.pipelined && manners.heads === 'whole') {
    for (const { onSend } of requests) onSend?.();
    socket.write(requests.map(serialize).join('') + manners.trailing);
  } else {
    for (const [at, request] of requests.entries()) {
      const text = serialize(request);
      if (manners.heads !== 'whole') {
        let from = 0;
        while (from < text.length - 1) {
          const to = manners.heads === 'bytes' ? from + 1 : Math.min(text.length - 1, from + random.int(1, 60));
          socket.write(text.slice(from, to));
          from = to;
          await (random.chance(0.05) ? sleep(random.int(1, 5)) : new Promise(setImmediate));
          if (over) return;
        }
        request.onSend?.();
        socket.write(text.slice(-1));
      } else {
        request.onSend?.();
        socket.write(text);
      }
      if (!manners.pipelined) await Promise.race([reader.received(at + 1), finished]);
      if (over) return;
    }
    if (manners.trailing !== '') socket.write(manners.trailing);
  }
  if (manners.halfClose) socket.end();
}

/** Divides received bytes into responses. */
class Reader {
  readonly responses: Response[] = [];
  readonly #requests: readonly Request[];
  #head: Buffer = Buffer.alloc(0);
  #current:
    | { status: number; headers: Record<string, string>; length: number; chunks: Buffer[]; have: number }
    | undefined;
  readonly #waiting: { count: number; resolve: () => void }[] = [];

  constructor(requests: readonly Request[]) {
    this.#requests = requests;
  }

  get done(): boolean {
    return this.responses.length === this.#requests.length;
  }

  get rest(): Buffer {
    return this.#head;
  }

  received(count: number): Promise<void> {
    if (this.responses.length >= count) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ count, resolve }));
  }

  push(bytes: Buffer): void {
    let chunk = bytes;
    while (chunk.length > 0) {
      if (this.#current === undefined) {
        this.#head = this.#head.length === 0 ? chunk : Buffer.concat([this.#head, chunk]);
        const end = this.#head.indexOf('\r\n\r\n');
        if (end < 0) return;
        chunk = this.#head.subarray(end + 4);
        const head = this.#head.subarray(0, end).toString('latin1');
        if (!/^HTTP\/1\.1 \d{3} /.test(head)) return;
        this.#head = Buffer.alloc(0);
        this.#begin(head);
      } else {
        const taken = chunk.subarray(0, this.#current.length - this.#current.have);
        this.#current.chunks.push(taken);
        this.#current.have += taken.length;
        chunk = chunk.subarray(taken.length);
      }
      if (this.#current !== undefined && this.#current.have >= this.#current.length) this.#end(true);
    }
  }

  #begin(head: string): void {
    const [first = '', ...lines] = head.split('\r\n');
    const headers: Record<string, string> = {};
    for (const line of lines) {
      const colon = line.indexOf(':');
      headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
    }
    const status = Number(first.split(' ')[1]);
    const bare = status === 304 || status < 200 || this.#requests[this.responses.length]?.method === 'HEAD';
    // The servers send bodies without a length only if the connection ends after them.
    const length = bare ? 0 : Number(headers['content-length'] ?? Number.POSITIVE_INFINITY);
    this.#current = { status, headers, length, chunks: [], have: 0 };
  }

  #end(whole: boolean): void {
    const current = this.#current;
    if (current === undefined) return;
    this.#current = undefined;
    const { status, headers, chunks } = current;
    this.responses.push({ status, headers, body: Buffer.concat(chunks), whole, at: performance.now() });
    for (const waiting of this.#waiting) if (this.responses.length >= waiting.count) waiting.resolve();
  }

  finish(how: Ending): void {
    this.#end(this.#current?.length === Number.POSITIVE_INFINITY && how === 'end');
  }
}
