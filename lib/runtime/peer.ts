/** Checks of the sockets and descriptors to send to or receive from. */
import { Socket } from 'node:net';

import { descriptor, hasParser, isPlainSocket } from '../node/node-internals.js';
import { readingConflict } from '../node/socket-reading.js';
import { failure, invalid } from '../util/errors.js';
import { isDescriptor } from '../util/options.js';
import { checkOptions, type DeliveryOptions } from './delivery-options.js';

/** A plain `net.Socket` (TCP or Unix), or a descriptor of a socket, pipe, file or terminal. */
export type SendTarget = Socket | number;

/** Checks a target and the options. Throws `ERR_ZEROSEND_INVALID_ARGUMENT` and `ERR_ZEROSEND_CLOSED`. */
export function checkDelivery(target: SendTarget, options: DeliveryOptions): void {
  if (target instanceof Socket && target.writableEnded && !target.destroyed) {
    throw failure('ERR_ZEROSEND_CLOSED', endedMessage(target));
  }
  checkPeer('target', target);
  checkOptions(options);
}

/** Checks a socket or descriptor to send to or receive from. */
export function checkPeer(name: string, peer: Socket | number): void {
  if (typeof peer === 'number') {
    if (!isDescriptor(peer)) throw invalid(name, peer, 'a descriptor (an integer from 0 up) or a net.Socket');
  } else if (!(peer instanceof Socket)) {
    throw invalid(name, peer, 'a net.Socket or a descriptor');
  } else if (peer.destroyed) {
    throw failure('ERR_ZEROSEND_CLOSED', `the ${name} socket is closed`);
  } else if (!isPlainSocket(peer)) {
    throw invalid(name, peer, 'a plain net.Socket; for TLS and wrapped sockets, use stream.pipeline');
  } else if (!peer.connecting && descriptor(peer) < 0) {
    throw failure('ERR_ZEROSEND_CLOSED', `the ${name} socket is not connected; connect it first`);
  }
}

/** Checks a socket or descriptor to receive from. Does not change it. */
export function checkSource(name: string, source: Socket | number): void {
  checkPeer(name, source);
  if (typeof source === 'number') return;
  if (source.readableEncoding !== null || source.readableObjectMode) {
    throw invalid(name, source, 'a socket without an encoding (setEncoding()), or stream.pipeline');
  }
  if (hasParser(source)) {
    throw invalid(name, source, "a socket without an HTTP parser (after 'upgrade' or 'connect'), or stream.pipeline");
  }
  const busy = readingConflict(name, source);
  if (busy !== undefined) throw busy;
}

/** The message for a socket whose writable side has ended. */
function endedMessage(socket: Socket): string {
  return socket.readableEnded && !socket.allowHalfOpen
    ? 'the peer ended the connection, so Node ended the target socket; to send after that, create it with allowHalfOpen: true'
    : 'the target socket has ended; send before calling end()';
}
