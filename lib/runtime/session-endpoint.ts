/** Sockets and descriptors that native code reads and writes instead of Node. */
import { Socket } from 'node:net';

import { interceptWrites, writeThrough } from '../node/intercept-writes.js';
import { descriptor, hasQueuedBytes } from '../node/node-internals.js';
import { StoppedReading } from '../node/socket-reading.js';
import { failure, type ZerosendError } from '../util/errors.js';
import { connected } from './bounds.js';
import { engine } from './engine.js';
import { checkPeer, checkSource } from './peer.js';

/** The timeout error's reason while the sockets of a session are not ready. */
export const NOT_READY = 'a socket is not connected, or its peer does not accept earlier writes';

/** A socket or descriptor for a session of a relay. */
export class SessionEndpoint {
  /** For errors. */
  readonly name: string;
  readonly socket: Socket | undefined;
  readonly #reads: boolean;
  readonly #writes: boolean;
  /** Of the duplicated descriptor; invalid once a session has started with it. */
  #handle: number | undefined;
  #reading: StoppedReading | undefined;
  #stopIntercepting: (() => void) | undefined;
  #onClose = () => {};
  /** JavaScript has closed the socket during the session. */
  closed = false;

  /**
   * Checks the socket and duplicates its descriptor, unless it is still connecting. The socket is unchanged if this throws.
   *
   * @param reads the session reads it
   * @param writes the session writes to it
   */
  constructor(name: string, peer: Socket | number, reads: boolean, writes: boolean) {
    if (reads) checkSource(name, peer);
    else checkPeer(name, peer);
    this.name = name;
    this.#reads = reads;
    this.#writes = writes;
    if (!(peer instanceof Socket)) {
      this.#handle = engine().duplicateDescriptor(peer);
      return;
    }
    this.socket = peer;
    if (writes && peer.writableEnded) {
      throw failure('ERR_ZEROSEND_CLOSED', `the ${name} socket was ended: start the relay before calling end()`);
    }
    if (!peer.connecting) this.#handle = engine().duplicateDescriptor(descriptor(peer));
  }

  /** Makes and suspends several endpoints, or none if one throws. */
  static all(make: Array<() => SessionEndpoint>): SessionEndpoint[] {
    const endpoints: SessionEndpoint[] = [];
    try {
      for (const one of make) endpoints.push(one());
      for (const endpoint of endpoints) endpoint.suspend();
      return endpoints;
    } catch (error) {
      for (const endpoint of endpoints) endpoint.release();
      throw error;
    }
  }

  /** Stops Node from reading the socket and from writing to it. */
  suspend(): this {
    const { socket } = this;
    if (socket === undefined) return this;
    if (this.#reads) this.#reading = new StoppedReading(socket);
    if (this.#writes) this.#stopIntercepting = interceptWrites(socket);
    // Node sees no more bytes, so its timeout would fire.
    if (this.#reads && this.#writes) socket.setTimeout(0);
    return this;
  }

  /** Resolves when the socket is connected and Node has written everything. */
  async ready(): Promise<void> {
    const { socket } = this;
    if (socket === undefined) return;
    await connected(socket, () => this.closedError());
    if (this.#stopIntercepting !== undefined && !socket.destroyed && hasQueuedBytes(socket)) {
      await new Promise<void>((resolve, reject) => {
        writeThrough(socket, '', (error) => (error ? reject(this.#writeError(error)) : resolve()));
      });
    }
    if (socket.destroyed) throw this.closedError();
    this.#handle ??= engine().duplicateDescriptor(descriptor(socket));
  }

  /** Node has read the end of the stream: closing the socket then loses no bytes. */
  get hasEnded(): boolean {
    return this.#reads && this.socket?.readableEnded === true;
  }

  /** The handle of the duplicated descriptor. */
  get handle(): number {
    return this.#handle as number;
  }

  /** Removes and returns the bytes that Node has read. */
  takeBuffered(): Buffer | undefined {
    return this.#reading?.take();
  }

  /** Calls `callback` when JavaScript closes the socket. */
  onClosed(callback: () => void): void {
    this.#onClose = () => {
      if (this.hasEnded && !this.#writes) return;
      this.closed = true;
      callback();
    };
    this.socket?.once('close', this.#onClose);
  }

  /** Returns the socket to Node. `bytes`: taken with {@link takeBuffered}, to be read by Node again. */
  release(bytes?: Buffer): void {
    this.socket?.off('close', this.#onClose);
    this.#reading?.restore(bytes);
    this.#stopIntercepting?.();
    if (this.#handle !== undefined) engine().release(this.#handle);
  }

  closedError(): ZerosendError {
    const error = failure('ERR_ZEROSEND_CLOSED', `the ${this.name} socket was closed`);
    return Object.assign(error, { side: this.name });
  }

  #writeError(error: Error): Error {
    const { code } = error as ZerosendError;
    if (code === 'ERR_STREAM_DESTROYED' || code === 'ECANCELED') return this.closedError();
    return Object.assign(error, { side: this.name });
  }
}
