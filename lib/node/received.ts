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
 * A tick that throws leaves its entry on the stack of async contexts, which Node's handler of uncaught exceptions clears and
 * nothing else does: the exception goes there at once. Caught and thrown later, it would end the process with a corrupted stack.
 *
 * Used of Node's internals: `socket.parser`, its method `execute()`, its property `parserOnBody` at whatever index that is,
 * `process._tickCallback` and `process._fatalException`. Where one of them is not as expected, the bytes are parsed without
 * ticks between.
 */
import type { Socket } from 'node:net';
import { inspect } from 'node:util';

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
  const runTicks = tickRunner();
  if (parser == null || typeof parser.execute !== 'function' || runTicks === undefined) return;
  const index = Object.keys(parser).find((key) => (parser[Number(key)] as OnBody | undefined)?.name === 'parserOnBody');
  if (index === undefined) return;
  parser.execute = (bytes) => {
    // The parser is used again for other connections.
    delete (parser as Partial<Parser>).execute;
    if (parser.socket !== socket) return parser.execute(bytes);
    const onBody = parser[Number(index)] as OnBody;
    parser[Number(index)] = function (this: Parser, piece: Buffer) {
      const result = onBody.call(this, piece);
      runTicks();
      return result;
    };
    try {
      return parser.execute(bytes);
    } finally {
      parser[Number(index)] = onBody;
    }
  };
  // The socket begins to flow in a tick. In one that others share, the ticks above would parse what is theirs.
  runTicks();
}

interface ProcessInternals {
  _tickCallback?: () => void;
  reallyExit(code: number): never;
  /** Returns whether there was a listener. */
  _fatalException?: (error: unknown, fromPromise: boolean) => boolean;
}

/** Runs ticks and promises as after a callback of Node's own; what one of them throws is an uncaught exception. */
function tickRunner(): (() => void) | undefined {
  const internals = process as unknown as ProcessInternals;
  const { _tickCallback: runTicks, _fatalException: handle } = internals;
  if (typeof runTicks !== 'function' || typeof handle !== 'function') return undefined;
  return () => {
    try {
      runTicks.call(process);
    } catch (error) {
      if (handle.call(process, error, false)) return;
      // 'exit' has been emitted. Node prints the error and ends.
      process.stderr.write(`Uncaught:\n${inspect(error)}\n\nNode.js ${process.version}\n`);
      internals.reallyExit(Number(process.exitCode) || 1);
    }
  };
}
