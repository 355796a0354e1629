/** Bodies that arrive in the same segment as their head: the application sees the same events as without the front door. */
import { once } from 'node:events';
import http, { type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';

import test, { type ExecutionContext } from 'ava';
import { frontDoor } from 'zerosend';

import { scratch, until } from '../support/files.js';
import { portOf } from '../support/wire.js';

type Log = (line: string) => void;
type Listener = (request: IncomingMessage, response: ServerResponse, log: Log) => void;

function read(request: IncomingMessage, log: Log): void {
  request.on('data', (chunk: Buffer) => log(`data ${chunk.length}`)).on('end', () => log(`end ${request.complete}`));
}

const listeners: Record<string, Listener> = {
  reads: (request, response, log) => {
    read(request, log);
    request.on('end', () => response.end('read'));
  },
  'reads, pauses and answers': (request, response, log) => {
    read(request, log);
    request.pause();
    response.end('early');
    setTimeout(() => request.resume(), 30);
  },
  'reads and answers': (request, response, log) => {
    read(request, log);
    response.end('early');
  },
  'reads, answers and pauses at the first bytes': (request, response, log) => {
    read(request, log);
    request.once('data', () => {
      request.pause();
      response.end('early');
      setTimeout(() => request.resume(), 10);
    });
    request.on('end', () => {
      if (!response.writableEnded) response.end('no body');
    });
  },
  'pauses and answers': (request, response, log) => {
    request.pause();
    response.end('early', () => log(`complete ${request.complete}`));
  },
  'answers and reads': (request, response, log) => {
    response.end('early');
    read(request, log);
  },
  'answers, and reads in a tick': (request, response, log) => {
    response.end('early');
    process.nextTick(() => read(request, log));
  },
  'reads in a promise': (request, response, log) => {
    void Promise.resolve().then(() => read(request, log));
    request.on('end', () => response.end('read'));
  },
  'answers, and reads in a promise': (request, response, log) => {
    response.end('early');
    void Promise.resolve().then(() => read(request, log));
  },
  'answers without reading': (_request, response) => response.end('early'),
  'answers later without reading': (_request, response) => void setTimeout(() => response.end('late'), 10),
  'discards later': (request, response, log) => {
    request.on('end', () => log(`end ${request.complete}`));
    setTimeout(() => request.resume(), 10);
    request.on('end', () => response.end('late'));
  },
  iterates: (request, response, log) => {
    void (async () => {
      for await (const chunk of request) log(`chunk ${(chunk as Buffer).length}`);
      log('iterated');
      response.end('read');
    })();
  },
  'iterates and leaves': (request, response, log) => {
    void (async () => {
      for await (const chunk of request) {
        log(`chunk ${(chunk as Buffer).length}`);
        break;
      }
      response.end('left');
    })().catch((error: Error) => log(error.message));
  },
  'reads by readable': (request, response, log) => {
    request.on('readable', () => {
      for (let chunk = request.read(); chunk !== null; chunk = request.read()) log(`read ${(chunk as Buffer).length}`);
    });
    request.on('end', () => response.end('read'));
  },
};

const post = (fields: string, body = '') => `POST / HTTP/1.1\r\nHost: x\r\n${fields}\r\n${body}`;
const five = post('Content-Length: 5\r\n', 'hello');
const chunked = 'Transfer-Encoding: chunked\r\n';

/** The bytes of one segment. */
const segments: Record<string, string> = {
  'a body': five,
  'a part of a body': post('Content-Length: 10\r\n', 'hello'),
  'a chunk': post(chunked, '5\r\nhello\r\n0\r\n\r\n'),
  'two chunks': post(chunked, '5\r\nhello\r\n6\r\nworld!\r\n0\r\n\r\n'),
  'a part of a chunk': post(chunked, 'a\r\nhello'),
  'a body of 40,000 bytes': post('Content-Length: 40000\r\n', 'x'.repeat(40_000)),
  'a body followed by a request': five + post('Content-Length: 0\r\n'),
  'two bodies': five + five,
  'an expectation and a body': post('Expect: 100-continue\r\nContent-Length: 5\r\n', 'hello'),
  'an upgrade': post('Connection: upgrade\r\nUpgrade: x\r\n', 'hello'),
  'no body': post(''),
};
/** Completes the bodies, followed by a request whose response shows that all others are done. */
const rest: Record<string, string> = { 'a part of a body': 'world', 'a part of a chunk': 'world\r\n0\r\n\r\n' };

async function observe(t: ExecutionContext, hasDoor: boolean, listener: Listener, name: string): Promise<string[]> {
  const log: string[] = [];
  let requests = 0;
  const server: Server = http.createServer((request, response) => {
    const number = ++requests;
    const line: Log = (text) => log.push(`${number}: ${text}`);
    line(`${request.method} ${request.headers['content-length']}`);
    request.on('aborted', () => line('aborted')).on('close', () => line('request closes'));
    response.on('finish', () => line('finish')).on('close', () => line('response closes'));
    if (request.url === '/last') response.end('last');
    else listener(request, response, line);
  });
  server.on('upgrade', (_request, socket: Socket, head: Buffer) => {
    log.push(`upgrade ${head.length}`);
    socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nlast');
  });
  if (hasDoor) frontDoor(server, { root: scratch(t), prefix: '/static/' });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect(portOf(server), '127.0.0.1');
  let received = '';
  const answered = new Promise<void>((resolve) => {
    client.on('data', (bytes) => {
      received += String(bytes);
      if (received.endsWith('last')) resolve();
    });
    client.on('error', () => {}).on('close', () => resolve());
  });
  client.write(segments[name] as string);
  await until(() => log.length > 0, 20_000);
  // Runs after the timers that the application has set before.
  await new Promise((resolve) => setTimeout(resolve, 50));
  client.write(`${rest[name] ?? ''}GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  await answered;
  client.destroy();
  await new Promise((resolve) => server.close(resolve));
  log.push(...received.split('\r\n').filter((line) => !/^date/i.test(line)));
  return log;
}

for (const [doing, listener] of Object.entries(listeners)) {
  test(`an application that ${doing}`, async (t) => {
    for (const name of Object.keys(segments)) {
      const [without, behind] = await Promise.all([
        observe(t, false, listener, name),
        observe(t, true, listener, name),
      ]);
      t.deepEqual(behind, without, name);
    }
  });
}
