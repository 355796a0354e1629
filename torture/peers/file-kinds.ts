/** The faults tried with file servers. Each returns a few words for its cell of the table. */
import {
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { FaultFs } from '../../__test__/support/faultfs-mount.js';
import { measure } from '../src/measure.js';
import { make, verify } from '../src/records.js';
import { ask, dial, parse, sleep, until } from './client.js';
import type { Limits, Peer } from './servers.js';

/** Starts the server for a root. */
export type Start = (root: string, limits?: Limits) => Promise<Peer>;

export interface Kind<S> {
  title: string;
  try(start: S): Promise<string>;
}

/** A root with some files, removed afterwards. */
async function withRoot<T>(act: (root: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'zerosend-peers-'));
  const root = join(directory, 'root');
  mkdirSync(root);
  writeFileSync(join(root, 'small.txt'), 'small');
  writeFileSync(join(root, 'large.bin'), make(1, 1, 1 << 20));
  try {
    return await act(root);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function withPeer<T>(start: Start, root: string, act: (peer: Peer) => Promise<T>, limits?: Limits): Promise<T> {
  const peer = await start(root, limits);
  try {
    return await act(peer);
  } finally {
    await peer.stop();
  }
}

/** Writes another version with the size and modification time of the old one, if possible with its inode number too. */
function replaceLikeTar(path: string, bytes: string): void {
  const { mtimeMs, atimeMs, ino } = statSync(path);
  for (let tries = 0; tries < 20; tries++) {
    rmSync(path);
    writeFileSync(path, bytes);
    if (statSync(path).ino === ino) break;
  }
  utimesSync(path, atimeMs / 1000, mtimeMs / 1000);
}

async function slowest(ports: () => Promise<unknown>, ms: number): Promise<number> {
  const end = performance.now() + ms;
  let worst = 0;
  while (performance.now() < end) {
    const begun = performance.now();
    await ports();
    worst = Math.max(worst, performance.now() - begun);
    await sleep(10);
  }
  return worst;
}

const seconds = (ms: number) => (ms < 100 ? 'under 0.1 s' : `${(ms / 1000).toFixed(1)} s`);

export const FILE_KINDS: readonly Kind<Start>[] = [
  {
    title: 'A file replaced by one with the same size and modification time (`tar xf`): next `GET`',
    try: (start) =>
      withRoot((root) => {
        const path = join(root, 'a.txt');
        writeFileSync(path, 'old');
        utimesSync(path, 1_577_836_800, 1_577_836_800);
        return withPeer(start, root, async ({ port }) => {
          const first = await ask(port, '/a.txt');
          await sleep(250);
          await ask(port, '/a.txt');
          await sleep(250);
          await ask(port, '/a.txt');
          replaceLikeTar(path, 'new');
          const next = await ask(port, '/a.txt');
          const conditional = await ask(port, '/a.txt', { 'If-None-Match': first.headers.etag ?? '' });
          return `${next.body.toString()} bytes; with the old tag ${conditional.status}`;
        });
      }),
  },
  {
    title: 'A file on FUSE (attributes not cached), changed without the mount: next `GET`',
    try: async (start) => {
      const mount = await FaultFs.mount({ attrTimeout: 0 });
      try {
        writeFileSync(join(mount.backing, 'a.txt'), 'old');
        return await withPeer(start, mount.path, async ({ port }) => {
          for (let times = 0; times < 3; times++) {
            await ask(port, '/a.txt');
            await sleep(150);
          }
          writeFileSync(join(mount.backing, 'a.txt'), 'newer');
          const { body, status } = await ask(port, '/a.txt');
          return status === 200
            ? `${body.toString() === 'newer' ? 'new' : `"${body.toString()}"`} bytes`
            : `status ${status}`;
        });
      } finally {
        await mount.close();
      }
    },
  },
  {
    title:
      'A file system with timestamps in whole seconds; a file written twice in one second with the same size: next `GET`',
    try: async (start) => {
      const mount = await FaultFs.mount({ attrTimeout: 0, entryTimeout: 0, wholeSeconds: true });
      try {
        const path = join(mount.backing, 'a.txt');
        return await withPeer(start, mount.path, async ({ port }) => {
          // Both changes happen in the first half of a second.
          await sleep(1000 - (Date.now() % 1000));
          writeFileSync(path, 'old');
          for (let times = 0; times < 3; times++) {
            await sleep(80);
            await ask(port, '/a.txt');
          }
          writeFileSync(path, 'new');
          await sleep(1500);
          return `${(await ask(port, '/a.txt')).body.toString()} bytes`;
        });
      } finally {
        await mount.close();
      }
    },
  },
  {
    title: 'The root is a symbolic link that is switched to the next release: next `GET`',
    try: (start) =>
      withRoot((root) => {
        for (const release of ['1', '2']) {
          mkdirSync(join(root, release));
          writeFileSync(join(root, release, 'a.txt'), release === '1' ? 'old' : 'new');
        }
        const link = join(root, 'current');
        symlinkSync('1', link);
        return withPeer(start, link, async ({ port }) => {
          for (let times = 0; times < 3; times++) {
            await ask(port, '/a.txt');
            await sleep(100);
          }
          symlinkSync('2', `${link}.new`);
          renameSync(`${link}.new`, link);
          return `${(await ask(port, '/a.txt')).body.toString()} bytes`;
        });
      }),
  },
  {
    title: 'The root is a FUSE mount whose daemon is killed and mounted again: next `GET`',
    try: async (start) => {
      const mount = await FaultFs.mount();
      try {
        writeFileSync(join(mount.backing, 'a.txt'), 'here');
        return await withPeer(start, mount.path, async ({ port }) => {
          await ask(port, '/a.txt');
          await mount.kill();
          const dead = await ask(port, '/a.txt');
          await mount.remount();
          return `${dead.status} while it is down, then ${(await ask(port, '/a.txt')).status}`;
        });
      } finally {
        await mount.close();
      }
    },
  },
  {
    title: 'A file with `st_size` 0 and 5 readable bytes (FUSE with `direct_io`): response',
    try: async (start) => {
      const mount = await FaultFs.mount({ directIo: true, zeroSize: true });
      try {
        writeFileSync(join(mount.backing, 'a.txt'), 'bytes');
        return await withPeer(start, mount.path, async ({ port }) => {
          const { status, body } = await ask(port, '/a.txt');
          return `${status}, ${body.length} of 5 bytes`;
        });
      } finally {
        await mount.close();
      }
    },
  },
  {
    title: 'A file of 40 MB truncated by one byte while a slow client receives it: response',
    try: (start) =>
      withRoot((root) => {
        const path = join(root, 'cut.bin');
        writeFileSync(path, make(7, 1, 40_000_001));
        return withPeer(start, root, async ({ port }) => {
          const client = await dial(port, 'GET /cut.bin HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n', false);
          await sleep(500);
          truncateSync(path, 40_000_000);
          const chunks: Buffer[] = [];
          client.socket.on('data', (chunk: Buffer) => chunks.push(chunk));
          await until(() => client.ended !== undefined, 15_000);
          client.socket.destroy();
          const { headers, body } = parse(Buffer.concat(chunks));
          const announced = Number(headers['content-length']);
          if (client.ended === undefined) return 'hangs';
          if (body.length < announced) return 'cut off';
          return verify(body, 7).bad === undefined && body.length === 40_000_001
            ? 'complete'
            : 'full length, with a byte that was never in the file';
        });
      }),
  },
  {
    title: 'A request with `Connection: close` for 1 MiB, followed by more bytes: complete responses',
    try: (start) =>
      withRoot((root) =>
        withPeer(start, root, async ({ port }) => {
          let whole = 0;
          for (let times = 0; times < 20; times++) {
            const text = 'GET /large.bin HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n';
            const client = await dial(port, `${text}${'x'.repeat(1000)}`);
            await until(() => client.ended !== undefined, 10_000);
            if (parse(client.received).body.length === 1 << 20) whole += 1;
            client.socket.destroy();
          }
          return `${whole} of 20`;
        }),
      ),
  },
  {
    title: 'The client half-closes after its request for 1 MiB: complete responses',
    try: (start) =>
      withRoot((root) =>
        withPeer(start, root, async ({ port }) => {
          let whole = 0;
          for (let times = 0; times < 20; times++) {
            const client = await dial(port);
            client.socket.end('GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n');
            await until(() => client.ended !== undefined, 5000);
            if (parse(client.received).body.length === 1 << 20) whole += 1;
            client.socket.destroy();
          }
          return `${whole} of 20`;
        }),
      ),
  },
  {
    title:
      'A request without `Host`, a valid one after it, then the client closes (20 times): sockets left open after 2 s',
    try: (start) =>
      withRoot((root) =>
        withPeer(start, root, async ({ port, pid }) => {
          await ask(port, '/small.txt');
          await sleep(1000);
          const before = measure(pid)?.sockets ?? 0;
          for (let times = 0; times < 20; times++) {
            const client = await dial(port);
            client.socket.end('GET /small.txt HTTP/1.1\r\n\r\nGET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n');
            await sleep(10);
            client.socket.destroy();
          }
          await sleep(2000);
          return String((measure(pid)?.sockets ?? 0) - before);
        }),
      ),
  },
  {
    title: 'Eight clients send `BAD` and then endless data: slowest `GET` of another client in 4 s',
    try: (start) =>
      withRoot((root) =>
        withPeer(start, root, async ({ port }) => {
          const stop = performance.now() + 4500;
          const flood = async () => {
            const bytes = Buffer.alloc(256 * 1024, 'x');
            while (performance.now() < stop) {
              const { socket } = await dial(port, 'BAD\r\n\r\n');
              socket.setMaxListeners(0);
              while (performance.now() < stop && socket.writable) {
                if (!socket.write(bytes)) {
                  await Promise.race([
                    new Promise((resolve) => socket.once('drain', resolve)),
                    new Promise((resolve) => socket.once('close', resolve)),
                    sleep(200),
                  ]);
                }
              }
              socket.destroy();
            }
          };
          const floods = Array.from({ length: 8 }, flood);
          const worst = await slowest(() => ask(port, '/small.txt'), 4000);
          await Promise.all(floods);
          return seconds(worst);
        }),
      ),
  },
  {
    title:
      'A FUSE file system that needs 1 s for attributes: slowest concurrent `GET` of a file on another file system',
    try: async (start) => {
      const mount = await FaultFs.mount({ attrTimeout: 0, entryTimeout: 0 });
      try {
        return await withRoot(async (root) => {
          writeFileSync(join(mount.backing, 'a.txt'), 'slow');
          symlinkSync(mount.path, join(root, 'fuse'));
          return await withPeer(start, root, async ({ port }) => {
            await ask(port, '/fuse/a.txt');
            await mount.set('getattr', { delay: 1000 });
            await mount.set('lookup', { delay: 1000 }, '/a.txt');
            const stop = performance.now() + 6000;
            const slow = Array.from({ length: 4 }, async () => {
              while (performance.now() < stop) await ask(port, '/fuse/a.txt', {}, 30_000);
            });
            const worst = await slowest(() => ask(port, '/small.txt', {}, 30_000), 5000);
            await mount.clear();
            await Promise.all(slow);
            return seconds(worst);
          });
        });
      } finally {
        await mount.close();
      }
    },
  },
  {
    title: 'A FUSE file system whose open(2) hangs for 6 s: slowest concurrent `GET` of a file on another file system',
    try: async (start) => {
      const mount = await FaultFs.mount({ attrTimeout: 0, entryTimeout: 0 });
      try {
        return await withRoot(async (root) => {
          writeFileSync(join(mount.backing, 'a.txt'), 'slow');
          symlinkSync(mount.path, join(root, 'fuse'));
          return await withPeer(start, root, async ({ port }) => {
            await mount.set('open', { hang: true });
            const slow = Array.from({ length: 8 }, () => ask(port, '/fuse/a.txt', {}, 30_000));
            await mount.held('open', 1);
            setTimeout(() => void mount.clear(), 6000);
            const worst = await slowest(() => ask(port, '/large.bin', {}, 30_000), 5000);
            await Promise.all(slow);
            return seconds(worst);
          });
        });
      } finally {
        await mount.close();
      }
    },
  },
  {
    title: '`ulimit -n 64`, 100 clients with one request each: statuses',
    try: (start) =>
      withRoot((root) =>
        withPeer(
          start,
          root,
          async ({ port }) => {
            const clients = await Promise.all(
              Array.from({ length: 100 }, () =>
                dial(port, 'GET /small.txt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n'),
              ),
            );
            await until(() => clients.every(({ ended }) => ended !== undefined), 15_000);
            const counts = new Map<string, number>();
            for (const { received, socket } of clients) {
              const { status } = parse(received);
              const what = status === 0 ? 'closed without a response' : `with ${status}`;
              counts.set(what, (counts.get(what) ?? 0) + 1);
              socket.destroy();
            }
            return [...counts].map(([what, count]) => `${count} ${what}`).join(', ');
          },
          { files: 64 },
        ),
      ),
  },
  {
    title: 'Stopped (SIGSTOP), 100 clients send requests, graceful shutdown signal, continued: responses',
    try: (start) =>
      withRoot((root) =>
        withPeer(start, root, async (peer) => {
          peer.process.kill('SIGSTOP');
          const clients = await Promise.all(
            Array.from({ length: 100 }, () =>
              dial(peer.port, 'GET /small.txt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n'),
            ),
          );
          const ended = peer.quit();
          peer.process.kill('SIGCONT');
          await ended;
          await until(() => clients.every((client) => client.ended !== undefined), 10_000);
          const answered = clients.filter(({ received }) => parse(received).status === 200).length;
          for (const { socket } of clients) socket.destroy();
          return String(answered);
        }),
      ),
  },
  {
    title: '30 pipelined requests: warnings of the process',
    try: (start) =>
      withRoot((root) =>
        withPeer(start, root, async ({ port, output }) => {
          const client = await dial(port, 'GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n'.repeat(30));
          await until(() => client.received.length > 30 << 20, 15_000);
          client.socket.destroy();
          await sleep(100);
          const whole = client.received.length > 30 << 20;
          return `${/MaxListenersExceededWarning/.test(output()) ? 'MaxListenersExceededWarning' : 'none'}${whole ? '' : ', incomplete'}`;
        }),
      ),
  },
  {
    title: '`If-Range` with the `ETag` received more than two seconds after the file was written: status',
    try: (start) =>
      withRoot(async (root) => {
        await sleep(2500);
        return await withPeer(start, root, async ({ port }) => {
          const { headers } = await ask(port, '/large.bin');
          const { status } = await ask(port, '/large.bin', { 'If-Range': headers.etag ?? '', Range: 'bytes=0-9' });
          return `${status} (${headers.etag?.startsWith('W/') ? 'weak' : 'strong'} tag)`;
        });
      }),
  },
  {
    title: '`/a%2Bb.txt` for a file `a+b.txt`; `//small.txt`; `/./small.txt`: statuses',
    try: (start) =>
      withRoot((root) => {
        writeFileSync(join(root, 'a+b.txt'), 'plus');
        return withPeer(start, root, async ({ port }) => {
          const statuses: number[] = [];
          for (const path of ['/a%2Bb.txt', '//small.txt', '/./small.txt'])
            statuses.push((await ask(port, path)).status);
          return statuses.join('; ');
        });
      }),
  },
  {
    title: '`Host: a:1:2`; `HTTP/1.2`; `Range: bytes=0-` of an empty file: statuses',
    try: (start) =>
      withRoot((root) => {
        writeFileSync(join(root, 'empty.txt'), '');
        return withPeer(start, root, async ({ port }) => {
          const host = await ask(port, '/small.txt', { Host: 'a:1:2' });
          const client = await dial(port, 'GET /small.txt HTTP/1.2\r\nHost: h\r\nConnection: close\r\n\r\n');
          await until(() => client.ended !== undefined, 5000);
          client.socket.destroy();
          const empty = await ask(port, '/empty.txt', { Range: 'bytes=0-' });
          return `${host.status}; ${parse(client.received).status}; ${empty.status}`;
        });
      }),
  },
  {
    title: '`Last-Modified` of a file dated next year; of a file with modification time 0',
    try: (start) =>
      withRoot((root) => {
        const future = Date.now() / 1000 + 365 * 86_400;
        writeFileSync(join(root, 'future.txt'), 'future');
        utimesSync(join(root, 'future.txt'), future, future);
        writeFileSync(join(root, 'zero.txt'), 'zero');
        utimesSync(join(root, 'zero.txt'), 0, 0);
        return withPeer(start, root, async ({ port }) => {
          const one = await ask(port, '/future.txt');
          const other = await ask(port, '/zero.txt');
          const date = one.headers['last-modified'];
          const lastModified =
            date === undefined ? 'none' : Date.parse(date) > Date.now() ? 'in the future' : 'not later than now';
          const zero = other.headers['last-modified'] === undefined ? 'no date' : '1970';
          return `${lastModified}; ${zero}`;
        });
      }),
  },
  {
    title: 'Restart with a Unix socket file left over by `kill -9`',
    try: (start) =>
      withRoot(async (root) => {
        const socket = join(root, 'listen.sock');
        const first = await start(root, { socket });
        await first.stop();
        const again = await Promise.race([
          start(root, { socket }).then(async (peer) => {
            await peer.stop();
            return 'listens';
          }),
          sleep(15_000, 'does not listen'),
        ]).catch((error: Error) => (/EADDRINUSE|Address already in use/.test(error.message) ? 'EADDRINUSE' : 'fails'));
        return again;
      }),
  },
];
