/** Clients that violate the protocol. Their responses are not checked; other clients and the resource checks show side effects. */
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Random } from '../random.js';
import type { Report } from '../report.js';
import type { Endpoint } from './http.js';

/** Files in the root of the world. */
const HUGE = 'huge.bin';

type Abuse = (socket: Socket, endpoint: Endpoint, random: Random) => Promise<void>;

const file = ({ site, files }: Endpoint, random: Random) => `/${site}/${random.pick(files).url}`;
const get = (endpoint: Endpoint, random: Random) => `GET ${file(endpoint, random)} HTTP/1.1\r\nHost: h\r\n\r\n`;

const ABUSES: Record<string, Abuse> = {
  'a malformed request, followed by another, closed': async (socket, endpoint, random) => {
    const bad = random.pick([
      `GET ${file(endpoint, random)} HTTP/1.1\r\n\r\n`,
      'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
      'GET / HTTP/1.1\r\nHost : a\r\n\r\n',
      'BAD\r\n\r\n',
      'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n',
    ]);
    socket.end(bad + get(endpoint, random));
    await sleep(random.int(0, 30));
    if (random.chance(0.5)) socket.destroy();
  },
  'a request followed by a malformed one, closed': async (socket, endpoint, random) => {
    socket.end(`${get(endpoint, random)}GET / HTTP/1.1\r\n\r\n${get(endpoint, random)}`);
    await sleep(random.int(0, 30));
    if (random.chance(0.5)) socket.destroy();
  },
  'a flood after a malformed request': async (socket, _endpoint, random) => {
    socket.write('BAD\r\n\r\n');
    const bytes = Buffer.alloc(256 * 1024, random.pick(['x', '\r\n', 'GET / HTTP/1.1\r\n']));
    const end = performance.now() + random.int(200, 2500);
    while (performance.now() < end && socket.writable) {
      if (!socket.write(bytes))
        await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), closed(socket), sleep(500)]);
    }
  },
  'a flood after Connection: close': async (socket, endpoint, random) => {
    socket.write(`GET ${file(endpoint, random)} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`);
    const bytes = Buffer.alloc(256 * 1024, 'x');
    const end = performance.now() + random.int(200, 2000);
    while (performance.now() < end && socket.writable) {
      if (!socket.write(bytes))
        await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), closed(socket), sleep(500)]);
    }
  },
  'an incomplete head': async (socket, endpoint, random) => {
    const text = get(endpoint, random);
    socket.write(text.slice(0, random.int(1, text.length - 1)));
    await sleep(random.int(0, 100));
    if (random.chance(0.5)) socket.end();
    else socket.resetAndDestroy();
  },
  'connected and silent': async (_socket, _endpoint, random) => {
    await sleep(random.int(0, 500));
  },
  'reset after the request': async (socket, endpoint, random) => {
    socket.write(get(endpoint, random));
    await sleep(random.int(0, 5));
    socket.resetAndDestroy();
  },
  'many requests without reading': async (socket, endpoint, random) => {
    socket.pause();
    socket.write(Array.from({ length: 40 }, () => get(endpoint, random)).join(''));
    await sleep(random.int(10, 500));
    if (random.chance(0.5)) socket.resetAndDestroy();
  },
  'a body for a file': async (socket, endpoint, random) => {
    const length = random.int(0, 200_000);
    socket.write(`POST ${file(endpoint, random)} HTTP/1.1\r\nHost: h\r\nContent-Length: ${length}\r\n\r\n`);
    socket.write(Buffer.alloc(random.int(0, length)));
    socket.write(get(endpoint, random));
    await sleep(random.int(0, 100));
  },
  'too many fields': async (socket, _endpoint, random) => {
    socket.write(`GET / HTTP/1.1\r\n${`a: ${'x'.repeat(random.int(1, 3000))}\r\n`.repeat(random.int(50, 2000))}\r\n`);
    await sleep(random.int(0, 100));
  },
  'HEAD of a file that takes long to hash': async (socket, { site }, random) => {
    socket.write(`HEAD /${site}/${HUGE} HTTP/1.1\r\nHost: h\r\n\r\n`.repeat(random.int(1, 4)));
    await sleep(random.int(0, 2000));
  },
  noise: async (socket, _endpoint, random) => {
    socket.write(Buffer.from(Array.from({ length: random.int(1, 3000) }, () => random.int(0, 255))));
    await sleep(random.int(0, 100));
  },
};

const closed = (socket: Socket) => new Promise((resolve) => socket.once('close', resolve));

export async function abuse(
  endpoints: readonly Endpoint[],
  report: Report,
  random: Random,
  signal: AbortSignal,
): Promise<void> {
  const names = Object.keys(ABUSES);
  while (!signal.aborted) {
    const endpoint = random.pick(endpoints);
    const name = random.pick(names);
    const socket = connect({ port: endpoint.port, host: '127.0.0.1', allowHalfOpen: random.chance(0.5) });
    socket.setMaxListeners(0);
    socket.on('error', () => {});
    if (random.chance(0.7)) socket.resume();
    await (ABUSES[name] as Abuse)(socket, endpoint, random);
    socket.destroy();
    report.count('abuse', name);
  }
}
