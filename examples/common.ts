/** Helpers of the examples: test files, connected sockets, measurement and command-line options. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const MIB = 1024 * 1024;

/** Creates a temporary directory that is removed when the process exits. */
export function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'zerosend-example-'));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Creates a file in which all pages differ and returns its path. */
export function makeFile(bytes: number, directory = scratch(), name = 'file.bin'): string {
  const path = join(directory, name);
  const file = openSync(path, 'w');
  const piece = Buffer.alloc(Math.min(bytes, MIB));
  for (let at = 0; at < bytes; at += piece.length) {
    for (let word = 0; word + 4 <= piece.length; word += 64) piece.writeUInt32LE((at + word) >>> 2, word);
    writeSync(file, piece, 0, Math.min(piece.length, bytes - at));
  }
  closeSync(file);
  return path;
}

export function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256')
    .update(typeof bytes === 'string' ? readFileSync(bytes) : bytes)
    .digest('hex')
    .slice(0, 16);
}

export interface Connection {
  /** The end that the example writes to. */
  socket: Socket;
  /** The receiving end. */
  peer: Socket;
  /** Resolves once `socket` has ended, with the number of bytes that `peer` received and their hash. */
  received: Promise<{ bytes: number; hash: string }>;
}

/** Connects two sockets over loopback. Reads and hashes the bytes that `peer` receives, unless `read` is false. */
export async function connection(read = true): Promise<Connection> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const peer = connect({ port: portOf(server), host: '127.0.0.1', allowHalfOpen: true });
  const [socket] = await accepted;
  server.close();
  if (!read) peer.pause();
  const received = read ? drain(peer) : new Promise<never>(() => {});
  return { socket, peer, received };
}

/** Reads a socket to its end. */
export async function drain(socket: Socket): Promise<{ bytes: number; hash: string }> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of socket) {
    hash.update(chunk as Buffer);
    bytes += (chunk as Buffer).length;
  }
  socket.end();
  return { bytes, hash: hash.digest('hex').slice(0, 16) };
}

export function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

/** Runs `work` and measures wall-clock and CPU milliseconds (all threads of this process). */
export async function timed<T>(work: () => Promise<T>): Promise<{ result: T; ms: number; cpuMs: number }> {
  const [begun, before] = [performance.now(), process.cpuUsage()];
  const result = await work();
  const { user, system } = process.cpuUsage(before);
  return { result, ms: performance.now() - begun, cpuMs: (user + system) / 1000 };
}

/** Formats a rate in MB/s (10^6 bytes). */
export function rate(bytes: number, ms: number): string {
  return `${(bytes / 1000 / ms).toFixed(0)} MB/s`;
}

/** The value of `--name value` or `-n value` on the command line. */
export function option(name: string, fallback: string): string {
  const at = process.argv.findIndex((arg) => arg === `--${name}` || arg === `-${name[0]}`);
  return (at > 0 ? process.argv[at + 1] : undefined) ?? fallback;
}

/** True without `--port`: a server then runs its demonstration and exits instead of staying up. */
export function isDemonstration(): boolean {
  return !process.argv.some((arg) => arg === '--port' || arg === '-p');
}
