/**
 * Passes bytes that native code has read from a connection to Node, with the same events as if Node had read them.
 *
 * When Node's parser reads from the handle, C++ calls the parser, and the callback for each chunk of a body is the outermost call
 * into JavaScript, after which Node runs ticks and promises (`MakeCallback` in `on_body`, node_http_parser.cc). Bytes that were put
 * back with `unshift` are parsed by `parser.execute()`, called from JavaScript: no ticks run before all bytes are parsed, and a
 * response that was finished early has discarded the body by then. For that call, ticks are run between the chunks.
 *
 * An exception in a tick leaves its entry on the stack of async contexts, which only Node's handler of uncaught exceptions clears.
 * Therefore it is passed to that handler at once: caught and thrown later, it would abort the process with a corrupted stack.
 *
 * Internals used: `socket.parser`, its method `execute()`, its indexed property `parserOnBody`, `process._tickCallback` and
 * `process._fatalException`. If one of them is not as expected, no ticks run between the chunks.
 */
import type { Socket } from 'node:net';
import { inspect } from 'node:util';

type OnBody = (this: Parser, chunk: Buffer) => unknown;

interface Parser {
  execute(bytes: Buffer): unknown;
  readonly socket: Socket | null;
  [index: number]: unknown;
}

const END_OF_HEAD = '\r\n\r\n';

/** Puts received bytes back. Must be called before the server's own listener of `connection`. */
export function putBack(socket: Socket, received: Buffer): void {
  if (received.length > 0) socket.unshift(received);
}

/**
 * Parses the bytes that {@link putBack} put back, with ticks between the chunks of bodies, unless the application has paused the
 * socket. Must be called after the server's own listener of `connection`.
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
    // Parsers are reused for other connections.
    delete (parser as Partial<Parser>).execute;
    if (parser.socket !== socket) return parser.execute(bytes);
    const onBody = parser[Number(index)] as OnBody;
    parser[Number(index)] = function (this: Parser, chunk: Buffer) {
      const result = onBody.call(this, chunk);
      runTicks();
      return result;
    };
    try {
      return parser.execute(bytes);
    } finally {
      parser[Number(index)] = onBody;
    }
  };
  // The socket starts to flow in a tick. Run it now: in a shared tick, the code above would run ticks of other connections.
  runTicks();
}

interface ProcessInternals {
  _tickCallback?: () => void;
  reallyExit(code: number): never;
  /** Returns whether an 'uncaughtException' listener handled it. */
  _fatalException?: (error: unknown, fromPromise: boolean) => boolean;
}

/** A function that runs ticks and promises as Node does after a callback. Exceptions are uncaught exceptions. */
function tickRunner(): (() => void) | undefined {
  const internals = process as unknown as ProcessInternals;
  const { _tickCallback: runTicks, _fatalException: handle } = internals;
  if (typeof runTicks !== 'function' || typeof handle !== 'function') return undefined;
  return () => {
    try {
      runTicks.call(process);
    } catch (error) {
      if (handle.call(process, error, false)) return;
      // As Node does after 'exit' was emitted: prints the error and exits.
      process.stderr.write(`Uncaught:\n${inspect(error)}\n\nNode.js ${process.version}\n`);
      internals.reallyExit(Number(process.exitCode) || 1);
    }
  };
}
