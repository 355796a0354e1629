/**
 * Bytes that the native side has read of a connection, given to Node so that the application sees the events that it would
 * have seen had Node read them.
 *
 * Node's parser reads from the handle: C++ calls the parser, and the callback for a piece of a body is the outermost call
 * into JavaScript, after which Node runs ticks and promises (`MakeCallback` in `on_body`, node_http_parser.cc). So a
 * listener of the request sees the first piece before the second, and before the end of the request. Bytes that were put
 * back by `unshift` are parsed by `parser.execute()`, called from JavaScript: there are no ticks before all of them have
 * been parsed, by when a response that was finished early has discarded the body. For that one call, ticks are run
 * where C++ would run them.
 *
 * Used of Node's internals: `socket.parser`, its method `execute()`, its property `parserOnBody` at whatever index that is,
 * and `process._tickCallback`. Where one of them is not as expected, the bytes are parsed without ticks between.
 */
import type { Socket } from 'node:net';

type OnBody = (this: Parser, piece: Buffer) => unknown;

interface Parser {
  execute(bytes: Buffer): unknown;
  readonly socket: Socket | null;
  [index: number]: unknown;
}

const END_OF_HEAD = '\r\n\r\n';

/** Before the server's own listener of `connection`: what was read is what the parser gets first. */
export function putBack(socket: Socket, received: Buffer): void {
  if (received.length > 0) socket.unshift(received);
}

/**
 * After that listener: has ticks run between the pieces of bodies in `received`, which was put back, and parses it now,
 * unless the application has paused the socket.
 */
export function parseAsRead(socket: Socket, received: Buffer): void {
  const end = received.indexOf(END_OF_HEAD);
  if (end === -1 || end + END_OF_HEAD.length === received.length) return;
  const { parser } = socket as { parser?: Parser | null };
  const { _tickCallback: runTicks } = process as { _tickCallback?: () => void };
  if (parser == null || typeof parser.execute !== 'function' || typeof runTicks !== 'function') return;
  const index = Object.keys(parser).find((key) => (parser[Number(key)] as OnBody | undefined)?.name === 'parserOnBody');
  if (index === undefined) return;
  parser.execute = (bytes) => {
    // The parser is used again for other connections.
    delete (parser as Partial<Parser>).execute;
    if (parser.socket !== socket) return parser.execute(bytes);
    const onBody = parser[Number(index)] as OnBody;
    parser[Number(index)] = function (this: Parser, piece: Buffer) {
      const result = onBody.call(this, piece);
      runTicks.call(process);
      return result;
    };
    try {
      return parser.execute(bytes);
    } finally {
      parser[Number(index)] = onBody;
    }
  };
  // The socket begins to flow in a tick. In one that others share, the ticks above would parse what is theirs.
  runTicks.call(process);
}
