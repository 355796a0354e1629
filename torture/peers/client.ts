/** TCP connections for the comparison. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export { sleep };

/** The bytes received over a connection, and how it ended. */
export interface Conversation {
  socket: Socket;
  received: Buffer;
  ended: 'end' | 'reset' | undefined;
}

export async function dial(port: number, text: string | Buffer = '', reading = true): Promise<Conversation> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const chunks: Buffer[] = [];
  const conversation: Conversation = {
    socket,
    get received() {
      return Buffer.concat(chunks);
    },
    ended: undefined,
  };
  if (reading) socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('end', () => {
    conversation.ended ??= 'end';
  });
  socket.on('error', () => {
    conversation.ended ??= 'reset';
  });
  socket.on('close', () => {
    conversation.ended ??= 'reset';
  });
  await Promise.race([once(socket, 'connect'), once(socket, 'close')]).catch(() => {});
  if (text.length > 0) socket.write(text);
  return conversation;
}

export async function until(condition: () => boolean, ms: number): Promise<boolean> {
  const end = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > end) return false;
    await sleep(5);
  }
  return true;
}

export interface Answer {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
}

/** Makes one request on a new connection; status 0 when nothing was received within `ms`. */
export async function ask(
  port: number,
  path: string,
  headers: Record<string, string> = {},
  ms = 10_000,
): Promise<Answer> {
  const fields = Object.entries({ Host: 'h', Connection: 'close', ...headers }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  const conversation = await dial(port, `GET ${path} HTTP/1.1\r\n${fields.join('')}\r\n`);
  await until(() => conversation.ended !== undefined, ms);
  conversation.socket.destroy();
  return parse(conversation.received);
}

/** The first response in `bytes`. */
export function parse(bytes: Buffer): Answer {
  const end = bytes.indexOf('\r\n\r\n');
  if (end < 0) return { status: 0, headers: {}, body: Buffer.alloc(0) };
  const [first = '', ...lines] = bytes.subarray(0, end).toString('latin1').split('\r\n');
  const headers = Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
  );
  return { status: Number(first.split(' ')[1]), headers, body: bytes.subarray(end + 4) };
}
