/** Sockets and raw HTTP for tests. */
import { once } from 'node:events';
import { connect, createServer, type NetConnectOpts, type Server, type Socket } from 'node:net';

import type { ExecutionContext } from 'ava';

/** The server's and the client's socket of a connection, TCP or (with a path) Unix. Destroyed after the test. */
export async function pair(t: ExecutionContext, path?: string): Promise<{ server: Socket; client: Socket }> {
  const listener: Server = createServer({ allowHalfOpen: true });
  listener.listen(path === undefined ? { port: 0, host: '127.0.0.1' } : { path });
  await once(listener, 'listening');
  const accepted = once(listener, 'connection');
  const client = connect(path === undefined ? { port: portOf(listener), host: '127.0.0.1' } : { path });
  client.on('error', () => {});
  const [server] = (await accepted) as [Socket];
  server.on('error', () => {});
  listener.close();
  t.teardown(() => {
    client.destroy();
    server.destroy();
  });
  return { server, client };
}

export function portOf(server: { address(): unknown }): number {
  return (server.address() as { port: number }).port;
}

/** Reads until the peer ends. */
export async function readAll(socket: NodeJS.ReadableStream): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** Reads until the connection ends; returns whether it was reset. */
export function readToClose(socket: Socket): Promise<{ bytes: Buffer; reset: boolean }> {
  const chunks: Buffer[] = [];
  let reset = false;
  return new Promise((resolve) => {
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      reset = error.code === 'ECONNRESET';
    });
    // libuv reports a reset that arrives with the last bytes as an end, but the socket has no peer then.
    socket.prependListener('end', () => {
      const { _handle: handle } = socket as unknown as { _handle?: { getpeername(out: object): number } };
      if (handle !== undefined && handle.getpeername({}) !== 0) reset = true;
    });
    socket.on('close', () => resolve({ bytes: Buffer.concat(chunks), reset }));
    socket.resume();
  });
}

/** Reads `length` bytes, or fewer if the connection closes before. */
export function readExactly(socket: Socket, length: number): Promise<Buffer> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let have = 0;
    const finish = () => {
      socket.off('data', onData).off('close', finish).off('end', finish);
      resolve(Buffer.concat(chunks));
    };
    const onData = (chunk: Buffer) => {
      chunks.push(chunk);
      have += chunk.length;
      if (have >= length) finish();
    };
    socket.on('data', onData).on('close', finish).on('end', finish);
  });
}

export interface WireResponse {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
}

/** Sends `text`, half-closes if requested, and reads until the peer closes. */
export async function exchange(to: number | NetConnectOpts, text: string, halfClose = false): Promise<Buffer> {
  const socket = connect(typeof to === 'number' ? { port: to, host: '127.0.0.1', allowHalfOpen: true } : to);
  socket.on('error', () => {});
  if (halfClose) socket.end(text);
  else socket.write(text);
  const all = await readAll(socket).catch(() => Buffer.alloc(0));
  socket.destroy();
  return all;
}

/** Splits bytes into HTTP/1.1 responses by their Content-Length. `heads` are the indexes of responses to HEAD. */
export function parseResponses(bytes: Buffer, heads: boolean[] = []): WireResponse[] {
  const responses: WireResponse[] = [];
  let rest = bytes;
  while (rest.length > 0) {
    const end = rest.indexOf('\r\n\r\n');
    if (end < 0) throw new Error(`not a head: ${JSON.stringify(rest.subarray(0, 80).toString('latin1'))}`);
    const [first = '', ...lines] = rest.subarray(0, end).toString('latin1').split('\r\n');
    if (!/^HTTP\/1\.1 \d{3} /.test(first)) throw new Error(`not a status line: ${JSON.stringify(first.slice(0, 80))}`);
    const headers: Record<string, string> = {};
    for (const line of lines) {
      const colon = line.indexOf(':');
      headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
    }
    const status = Number(first.split(' ')[1]);
    const bare = heads[responses.length] === true || status === 304;
    if (!bare && headers['transfer-encoding'] === 'chunked') {
      const [body, length] = joinChunks(rest.subarray(end + 4));
      responses.push({ status, headers, body });
      rest = rest.subarray(end + 4 + length);
      continue;
    }
    const length = bare ? 0 : Number(headers['content-length'] ?? 0);
    responses.push({ status, headers, body: rest.subarray(end + 4, end + 4 + length) });
    rest = rest.subarray(end + 4 + length);
  }
  return responses;
}

/** The body of a chunked message without trailers, and its length in `bytes`. */
function joinChunks(bytes: Buffer): [Buffer, number] {
  const chunks: Buffer[] = [];
  for (let at = 0; ; ) {
    const end = bytes.indexOf('\r\n', at);
    const length = Number.parseInt(bytes.subarray(at, end).toString('latin1'), 16);
    if (end < 0 || Number.isNaN(length)) throw new Error('not a chunk');
    at = end + 2 + length + 2;
    if (length === 0) return [Buffer.concat(chunks), at];
    chunks.push(bytes.subarray(end + 2, end + 2 + length));
  }
}

/** A request on a new connection. */
export async function get(
  to: number | NetConnectOpts,
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<WireResponse> {
  const fields = { Host: 'test', Connection: 'close', ...headers };
  const head = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  const all = await exchange(to, `${method} ${path} HTTP/1.1\r\n${head.join('')}\r\n`);
  const [response] = parseResponses(all, [method === 'HEAD']);
  if (response === undefined) throw new Error('the connection was closed without a response');
  return response;
}
