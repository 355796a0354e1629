/**
 * Reading a socket instead of Node, in every state and callback: relay, createSplitter and receiveFile receive all bytes, listeners
 * receive none of them, and bytes that are refused or left over are read by Node.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';

import test, { type ExecutionContext } from 'ava';
import { createSplitter, receiveFile, relay, type ZerosendError } from 'zerosend';

import { pattern, scratch, sha256, until } from '../support/files.js';
import { portOf, readAll } from '../support/wire.js';

const LINE = Buffer.from('a line\n');
const REST = pattern(300_000);
/** Repetitions: the result depends on the bytes in the kernel when Node reads. */
const ROUNDS = 4;

type Start = () => void;
type Got = (bytes: Buffer) => void;
/** Brings a connected socket into a state and calls `start`. `got` counts the bytes that the application has read. */
type State = (socket: net.Socket, start: Start, got: Got) => void;

function onceOnly(start: Start): Start {
  let started = false;
  return () => {
    if (!started) start();
    started = true;
  };
}

/** States that are reached with the first bytes of the peer. */
const STATES: Record<string, State> = {
  'inside a data callback': (socket, start, got) =>
    socket.once('data', (bytes) => {
      got(bytes);
      start();
    }),
  'inside the callback of a data listener that stays': (socket, start, got) => {
    const first = onceOnly(start);
    socket.on('data', (bytes) => {
      got(bytes);
      first();
    });
  },
  'inside a data callback, after unshift': (socket, start) =>
    socket.once('data', (bytes) => {
      socket.unshift(bytes);
      start();
    }),
  'inside a data callback, before unshift': (socket, start) =>
    socket.once('data', (bytes) => {
      start();
      socket.unshift(bytes);
    }),
  'inside a data callback, after pause': (socket, start, got) =>
    socket.once('data', (bytes) => {
      got(bytes);
      socket.pause();
      start();
    }),
  'in a nextTick of a data callback': (socket, start, got) =>
    socket.once('data', (bytes) => {
      got(bytes);
      process.nextTick(start);
    }),
  'in a microtask of a data callback': (socket, start, got) =>
    socket.once('data', (bytes) => {
      got(bytes);
      queueMicrotask(start);
    }),
  'inside a readable callback, before read': (socket, start) => socket.once('readable', start),
  'inside a readable callback, after a part was read': (socket, start, got) =>
    socket.once('readable', () => {
      got(socket.read(3) as Buffer);
      start();
    }),
  'with a readable listener that stays and reads': (socket, start, got) => {
    const first = onceOnly(start);
    socket.on('readable', () => {
      const bytes = socket.read() as Buffer | null;
      if (bytes === null) return;
      got(bytes);
      first();
    });
  },
  'inside an async iteration': async (socket, start, got) => {
    const first = onceOnly(start);
    try {
      for await (const bytes of socket) {
        got(bytes as Buffer);
        first();
      }
    } catch {
      // The relay destroys the socket when it ends.
    }
  },
  'after a pause with bytes in Node': (socket, start) => {
    socket.pause();
    socket.read(0);
    void until(() => socket.readableLength > 0).then(start);
  },
  'while it is piped': (socket, start, got) => {
    const sink = new (class extends net.Socket {})();
    sink.write = ((bytes: Buffer) => {
      got(bytes);
      first();
      return true;
    }) as never;
    const first = onceOnly(start);
    socket.pipe(sink);
  },
};

/** Functions that read a socket; they resolve with all bytes. */
const TAKERS: Record<string, (t: ExecutionContext, socket: net.Socket) => Promise<Buffer>> = {
  relay: async (_, socket) => {
    const [inside, outside] = pairs.pop();
    const [received] = await Promise.all([readAll(outside), relay(socket, inside)]);
    return received;
  },
  createSplitter: async (_, socket) => {
    const [inside, outside] = pairs.pop();
    const received = readAll(outside);
    received.catch(() => {});
    const splitter = await createSplitter(socket, [inside]);
    await splitter.finished;
    return received;
  },
  receiveFile: async (t, socket) => {
    const path = join(scratch(t), 'file');
    await receiveFile(socket, path);
    return readFileSync(path);
  },
};

/** Connections made in advance, for use in callbacks. */
const pairs = {
  ready: [] as Array<[net.Socket, net.Socket]>,
  async fill(t: ExecutionContext): Promise<void> {
    if (this.ready.length === 0) this.ready.push(await pair(t));
  },
  pop(): [net.Socket, net.Socket] {
    return this.ready.pop() as [net.Socket, net.Socket];
  },
};

async function pair(t: ExecutionContext, options: net.ServerOpts = {}): Promise<[net.Socket, net.Socket]> {
  const server = net.createServer({ allowHalfOpen: true, ...options }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const outside = net.connect({ port: portOf(server), host: '127.0.0.1', allowHalfOpen: true });
  const [inside] = (await once(server, 'connection')) as [net.Socket];
  if (outside.connecting) await once(outside, 'connect');
  server.close();
  for (const socket of [outside, inside]) {
    socket.on('error', () => {});
    t.teardown(() => socket.destroy());
  }
  return [inside, outside];
}

/** Waits some iterations of the event loop, for deferred callbacks of Node. */
async function turns(): Promise<void> {
  for (let count = 0; count < 5; count++) await turn();
}

for (const [taker, take] of Object.entries(TAKERS)) {
  for (const [name, state] of Object.entries(STATES)) {
    test.serial(`${taker} ${name}: every byte arrives once`, async (t) => {
      for (let round = 0; round < ROUNDS; round++) {
        await pairs.fill(t);
        const [socket, peer] = await pair(t, { allowHalfOpen: round % 2 === 0 });
        peer.resume();
        const read: Buffer[] = [];
        let taken: Promise<Buffer> | undefined;
        const start = () => {
          taken = take(t, socket);
          taken.catch(() => {});
        };
        state(socket, start, (bytes) => read.push(bytes));
        peer.write(LINE);
        await until(() => taken !== undefined);
        await turns();
        peer.end(REST);
        const all = Buffer.concat([...read, (await taken) as Buffer]);
        t.is(sha256(all), sha256(Buffer.concat([LINE, REST])), `round ${round}: ${all.length} bytes`);
      }
    });
  }

  for (const pauseOnConnect of [false, true]) {
    test.serial(`${taker} in the callback of a new connection, pauseOnConnect ${pauseOnConnect}`, async (t) => {
      await pairs.fill(t);
      const server = net.createServer({ pauseOnConnect }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      t.teardown(() => server.close());
      const received = new Promise<Buffer>((resolve, reject) => {
        server.once('connection', (socket) => {
          t.teardown(() => socket.destroy());
          take(t, socket).then(resolve, reject);
        });
      });
      net.connect(portOf(server), '127.0.0.1').resume().end(REST);
      t.is(sha256(await received), sha256(REST));
    });
  }

  for (const host of ['127.0.0.1', 'localhost'])
    for (const when of ['connecting', 'inside the connect callback'] as const) {
      test.serial(`${taker} of a client, ${when}, to ${host}`, async (t) => {
        await pairs.fill(t);
        const server = net.createServer((socket) => socket.on('error', () => {}).end(REST)).listen(0, '127.0.0.1');
        await once(server, 'listening');
        t.teardown(() => server.close());
        const socket = net.connect(portOf(server), host);
        socket.on('error', () => {});
        const received = new Promise<Buffer>((resolve, reject) => {
          const start = () => take(t, socket).then(resolve, reject);
          if (when === 'connecting') start();
          else socket.once('connect', start);
        });
        t.is(sha256(await received), sha256(REST));
      });
    }

  test.serial(`${taker} in an 'end' callback: there are no bytes to read`, async (t) => {
    await pairs.fill(t);
    const [socket, peer] = await pair(t);
    peer.resume().end(LINE);
    const received = new Promise<Buffer>((resolve, reject) => {
      socket.resume().once('end', () => take(t, socket).then(resolve, reject));
    });
    t.is((await received).length, 0);
  });

  test.serial(`${taker} of a socket that has ended, with bytes in Node's buffer`, async (t) => {
    for (const allowHalfOpen of [true, false]) {
      await pairs.fill(t);
      const [socket, peer] = await pair(t, { allowHalfOpen });
      socket.pause();
      socket.read(0);
      peer.resume().end(LINE);
      await until(() => (socket as unknown as { _readableState: { ended: boolean } })._readableState.ended);
      t.is((await take(t, socket)).toString(), LINE.toString());
    }
  });

  test.serial(`${taker} refuses sockets that do not return bytes, and Node continues to read`, async (t) => {
    const cases: Array<[string, RegExp, (socket: net.Socket) => void]> = [
      ['setEncoding, with bytes read', /setEncoding/, (socket) => socket.setEncoding('utf8')],
      ['setEncoding of half a character', /setEncoding/, (socket) => socket.setEncoding('utf16le')],
    ];
    for (const [name, message, change] of cases) {
      await pairs.fill(t);
      const [socket, peer] = await pair(t);
      socket.once('readable', () => {});
      peer.write(LINE);
      await until(() => socket.readableLength > 0);
      change(socket);
      const error = (await t.throwsAsync(take(t, socket), { message }, name)) as ZerosendError;
      t.is(error.code, 'ERR_ZEROSEND_INVALID_ARGUMENT');
      t.false(socket.destroyed);
      peer.end('!');
      let text = '';
      for await (const part of socket) text += part;
      t.is(Buffer.from(text, name.includes('half') ? 'utf16le' : 'utf8').toString(), `${LINE}!`);
    }
  });
}

test.serial('a socket of an HTTP request is refused before its upgrade, and the response is sent', async (t) => {
  const directory = scratch(t);
  const refused: unknown[] = [];
  const server = http.createServer(async (request, response) => {
    for (const attempt of [relay(request.socket, 0), receiveFile(request.socket, join(directory, 'file'))]) {
      await attempt.catch((error: ZerosendError) => refused.push(error.code));
    }
    request.pipe(response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const sent = http.request({ port: portOf(server), method: 'POST', agent: false });
  sent.end('body');
  const [response] = (await once(sent, 'response')) as [http.IncomingMessage];
  t.is((await readAll(response)).toString(), 'body');
  t.deepEqual(refused, ['ERR_ZEROSEND_INVALID_ARGUMENT', 'ERR_ZEROSEND_INVALID_ARGUMENT']);
});

test.serial('relay: if the second socket is refused, the first is unchanged', async (t) => {
  const [socket, peer] = await pair(t);
  peer.write(LINE);
  socket.once('readable', () => {});
  await until(() => socket.readableLength > 0);
  const ended = (await pair(t))[0];
  ended.end();
  const destroyed = (await pair(t))[0].destroy();
  const text = (await pair(t))[0].setEncoding('latin1');
  const unconnected = new net.Socket();
  const cases: Array<[net.Socket | number, string]> = [
    [ended, 'ERR_ZEROSEND_CLOSED'],
    [destroyed, 'ERR_ZEROSEND_CLOSED'],
    [unconnected, 'ERR_ZEROSEND_CLOSED'],
    [text, 'ERR_ZEROSEND_INVALID_ARGUMENT'],
    [socket, 'ERR_ZEROSEND_INVALID_ARGUMENT'],
    [98765, 'EBADF'],
  ];
  for (const [other, code] of cases) {
    await t.throwsAsync(relay(socket, other), { code });
    if (other !== socket) await t.throwsAsync(relay(other, socket), { code });
  }
  t.false(socket.destroyed);
  t.is(socket.readableFlowing, null);
  peer.end('!');
  t.is((await readAll(socket)).toString(), `${LINE}!`);
});

test.serial('receiveFile fails before the first byte: Node reads everything', async (t) => {
  const directory = scratch(t);
  for (const flowing of ['paused', 'data', 'readable'] as const) {
    const [socket, peer] = await pair(t);
    const got: Buffer[] = [];
    socket.pause();
    socket.read(0);
    peer.write(LINE);
    await until(() => socket.readableLength > 0);
    const failing = t.throwsAsync(receiveFile(socket, join(directory, 'no', 'file')), { code: 'ENOENT' });
    if (flowing === 'data') socket.on('data', (bytes) => got.push(bytes)).resume();
    if (flowing === 'readable') {
      socket.on('readable', () => {
        const bytes = socket.read() as Buffer | null;
        if (bytes !== null) got.push(bytes);
      });
    }
    await failing;
    peer.end('!');
    if (flowing === 'paused') got.push(await readAll(socket));
    else await once(socket, 'end');
    t.is(Buffer.concat(got).toString(), `${LINE}!`, flowing);
  }
});

test.serial('receiveFile of a part: the remaining bytes go to the listeners', async (t) => {
  const path = join(scratch(t), 'file');
  const states: Array<(socket: net.Socket, got: Buffer[]) => unknown> = [
    (socket, got) => socket.on('data', (bytes) => got.push(bytes)),
    (socket, got) =>
      socket.on('readable', () => {
        const bytes = socket.read() as Buffer | null;
        if (bytes !== null) got.push(bytes);
      }),
  ];
  for (const [at, state] of states.entries()) {
    for (const length of [3, 100_000]) {
      const [socket, peer] = await pair(t);
      const got: Buffer[] = [];
      socket.pause();
      socket.read(0);
      peer.write(LINE);
      await until(() => socket.readableLength > 0);
      const receiving = receiveFile(socket, path, { length });
      state(socket, got);
      if (at === 0) socket.resume();
      peer.end(REST);
      await receiving;
      if (!socket.readableEnded) await once(socket, 'end');
      const all = Buffer.concat([readFileSync(path), ...got]);
      t.is(sha256(all), sha256(Buffer.concat([LINE, REST])), `state ${at}, length ${length}`);
    }
  }
});

test.serial('two readers of one socket: the second is refused', async (t) => {
  const [socket, peer] = await pair(t);
  const [other] = await pair(t);
  const path = join(scratch(t), 'file');
  const receiving = receiveFile(socket, path);
  await t.throwsAsync(relay(socket, other), { code: 'ERR_ZEROSEND_BUSY' });
  await t.throwsAsync(createSplitter(socket, [other]), { code: 'ERR_ZEROSEND_BUSY' });
  t.false(other.destroyed);
  peer.end(REST);
  t.is((await receiving).bytes, REST.length);
  t.is(socket.read, net.Socket.prototype.read, 'the methods of the socket are its own again');
});
