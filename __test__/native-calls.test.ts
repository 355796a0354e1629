/** Calls of the native binding: how many a response takes, and what they refuse. */
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import Fastify from 'fastify';
import { createStaticHandler } from 'zerosend';
import zerosendStatic from 'zerosend/fastify';

import { engine, nextPending } from '../dist/lib/runtime/engine.js';
import { Site } from '../dist/lib/static/site.js';
import { openDescriptors, scratch, settle } from './support/files.js';
import { get, pair, portOf } from './support/wire.js';

const serial = test.serial;

/** Records the native calls of the rest of the test. */
function recordCalls(t: ExecutionContext): string[] {
  const binding = engine() as unknown as Record<string, unknown>;
  const calls: string[] = [];
  for (const [name, original] of Object.entries(binding)) {
    if (typeof original !== 'function') continue;
    binding[name] = (...args: unknown[]) => {
      calls.push(name);
      return original(...args);
    };
    t.teardown(() => {
      binding[name] = original;
    });
  }
  return calls;
}

function folder(t: ExecutionContext): string {
  const root = scratch(t);
  writeFileSync(join(root, 'a.txt'), 'contents of a');
  writeFileSync(join(root, 'b.txt'), 'contents of b');
  writeFileSync(join(root, 'empty.txt'), '');
  settle();
  return root;
}

/** The files below `root` that this process has open, without `root`. */
function filesOpenBelow(root: string): string[] {
  return openDescriptors()
    .filter((path) => path.startsWith(`${root}/`))
    .map((path) => path.slice(root.length));
}

/** Requests a path on one connection until the caches of the response are filled, then records the calls of one more request. */
async function callsOf(t: ExecutionContext, port: number, path: string): Promise<string[]> {
  const text = async () => await (await fetch(`http://127.0.0.1:${port}${path}`)).text();
  for (let round = 0; round < 3; round++) await text();
  const calls = recordCalls(t);
  t.is(await text(), 'contents of a');
  return [...calls];
}

async function listenWithPlugin(t: ExecutionContext, root: string, options: object = {}): Promise<number> {
  const app = Fastify();
  t.teardown(() => app.close());
  await app.register(zerosendStatic, { root, ...options });
  await app.listen({ port: 0, host: '127.0.0.1' });
  return portOf(app.server);
}

async function listenWithHandler(t: ExecutionContext, root: string): Promise<number> {
  const handler = createStaticHandler(root);
  const server = createServer((request, response) => handler(request, response)).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  t.teardown(() => {
    server.close();
    handler.close();
  });
  return portOf(server);
}

/** Makes the response to `path` the pending one and returns its number. */
function respond(site: Site, path: string): number {
  const number = nextPending();
  for (let attempt = 0; site.respond(number, path, true, false, undefined) === undefined; attempt++) {
    if (attempt === 1000) throw new Error('the file is not cached by the kernel');
  }
  return number;
}

serial('the plugin sends a small file with two native calls', async (t) => {
  const port = await listenWithPlugin(t, folder(t));
  t.deepEqual(await callsOf(t, port, '/a.txt'), ['respond', 'startPending']);
});

serial('createStaticHandler sends a small file with two native calls', async (t) => {
  const port = await listenWithHandler(t, folder(t));
  t.deepEqual(await callsOf(t, port, '/a.txt'), ['respond', 'startPending']);
});

serial('a pending response that a later one has replaced is refused', async (t) => {
  const site = new Site([folder(t)], {});
  t.teardown(() => site.close());
  const { server } = await pair(t);
  const { fd } = (server as unknown as { _handle: { fd: number } })._handle;
  const first = respond(site, '/a.txt');
  const second = respond(site, '/b.txt');
  const refused = { code: 'ERR_ZEROSEND_INTERNAL', message: /replaced/ };
  t.throws(() => engine().startPending(first, fd, 'HTTP/1.1 200 OK\r\n\r\n', 1024), refused);
  t.throws(() => engine().keepPending(first), refused);
  t.throws(() => engine().describePending(first), refused);
  t.is(engine().describePending(second).path, 'b.txt');
  const transfer = engine().keepPending(second);
  t.is(engine().take(transfer, 100)?.toString(), 'contents of b');
  t.throws(() => engine().keepPending(second), refused, 'a response cannot be kept twice');
  engine().release(transfer);
});

serial('a response without a body keeps no file open', async (t) => {
  const root = folder(t);
  const port = await listenWithPlugin(t, root, { cache: false, method: 'sendfile' });
  for (const [path, method] of [['/empty.txt'], ['/a.txt', 'HEAD']] as [string, string?][]) {
    for (let round = 0; round < 3; round++) t.is((await get(port, path, {}, method)).status, 200);
    t.deepEqual(filesOpenBelow(root), [], `${method ?? 'GET'} ${path}`);
  }
});

serial('releasing a pending response closes its file', (t) => {
  const root = folder(t);
  const site = new Site([root], { cache: false, method: 'sendfile' });
  t.teardown(() => site.close());
  const number = respond(site, '/a.txt');
  t.deepEqual(filesOpenBelow(root), ['/a.txt']);
  engine().release(number - 1);
  t.deepEqual(filesOpenBelow(root), ['/a.txt'], 'another number');
  engine().release(number);
  t.deepEqual(filesOpenBelow(root), []);
});

serial('a handle of another kind is refused', (t) => {
  const site = new Site([folder(t)], {});
  t.teardown(() => site.close());
  const before = engine().liveHandles();
  const cache = engine().openCache({ populate: false, advice: 'normal' });
  const transfer = engine().keepPending(respond(site, '/a.txt'));
  t.is(engine().liveHandles(), before + 2);
  const refused = (message: string) => ({ code: 'ERR_ZEROSEND_INVALID_ARGUMENT', message });
  t.throws(() => engine().report(cache), refused(`not a transfer: ${cache}`));
  t.throws(() => engine().report(site.handle), refused(`not a transfer: ${site.handle}`));
  t.throws(() => engine().cacheCounters(transfer), refused(`not a cache: ${transfer}`));
  t.throws(() => engine().serverCounters(cache), refused(`not a server: ${cache}`));
  engine().release(transfer);
  engine().release(cache);
  engine().release(cache);
  t.is(engine().liveHandles(), before);
  t.throws(() => engine().report(transfer), { code: 'ERR_ZEROSEND_CLOSED', message: /has ended or was released/ });
  t.throws(() => engine().cacheCounters(cache), { code: 'ERR_ZEROSEND_CLOSED', message: 'the cache is closed' });
});
