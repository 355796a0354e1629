/** Status and headers that the application has set before a file is sent, and options of single responses. */
import { once } from 'node:events';
import http, { type ServerResponse } from 'node:http';

import test, { type ExecutionContext } from 'ava';
import fastify, { type FastifyReply } from 'fastify';
import { createStaticHandler, type StaticHandlerOptions } from 'zerosend';
import fastifyStatic from 'zerosend/fastify';

import { engine } from '../../dist/lib/runtime/engine.js';
import { pattern, patternFile, scratch } from '../support/files.js';
import { get, portOf } from '../support/wire.js';

function files(t: ExecutionContext): string {
  const root = scratch(t);
  patternFile(root, 'a.txt', 100);
  patternFile(root, 'a.txt.gz', 50);
  patternFile(root, '404.html', 20);
  return root;
}

/** A server that calls `prepare` before the handler. */
async function handlerWith(
  t: ExecutionContext,
  prepare: (response: ServerResponse) => void,
  options: StaticHandlerOptions = {},
): Promise<number> {
  const handler = createStaticHandler(files(t), options);
  const server = http.createServer((request, response) => {
    prepare(response);
    handler(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    handler.close();
  });
  return portOf(server);
}

const onFile = async () => {};

for (const options of [{}, { onFile }]) {
  const how = 'onFile' in options ? ' after a callback' : '';

  test(`headers that were set before are kept${how}`, async (t) => {
    const own = {
      'cache-control': 'no-store',
      'content-type': 'text/markdown',
      etag: '"own"',
      'last-modified': 'Sat, 01 Jan 2022 00:00:00 GMT',
      'accept-ranges': 'none',
      'content-encoding': 'identity',
      'x-own': 'yes',
    };
    const port = await handlerWith(t, (response) => response.setHeaders(new Map(Object.entries(own))), options);
    for (const method of ['GET', 'HEAD']) {
      const { status, headers } = await get(port, '/a.txt', {}, method);
      t.is(status, 200);
      t.like(headers, { ...own, 'content-length': '100' });
    }
    // Preconditions are compared with validators that were set.
    const status = async (fields: Record<string, string>) => (await get(port, '/a.txt', fields)).status;
    t.is(await status({ 'If-None-Match': '"own"' }), 304);
    t.is(await status({ 'If-None-Match': '"other"' }), 200);
    t.is(await status({ 'If-Match': '"other"' }), 412);
    t.is(await status({ 'If-Modified-Since': 'Sat, 01 Jan 2022 00:00:00 GMT' }), 304);
    t.is(await status({ 'If-Modified-Since': 'Sat, 01 Jan 2000 00:00:00 GMT' }), 200);
    t.is(await status({ Range: 'bytes=0-1', 'If-Range': '"own"' }), 206);
    t.is(await status({ Range: 'bytes=0-1', 'If-Range': '"other"' }), 200);
    const fresh = await get(port, '/a.txt', { 'If-None-Match': '"own"' });
    t.is(fresh.headers['content-type'], undefined, 'a 304 has no content');
    t.is(fresh.headers['cache-control'], 'no-store');
    const part = await get(port, '/a.txt', { Range: 'bytes=10-19' });
    t.like(part.headers, {
      'content-range': 'bytes 10-19/100',
      'content-length': '10',
      'content-type': 'text/markdown',
    });
  });

  test(`headers that describe the sent bytes are replaced${how}`, async (t) => {
    const prepare = (response: ServerResponse) => {
      response.setHeader('content-encoding', 'br').setHeader('content-length', '7').setHeader('vary', 'origin');
      response.setHeader('content-type', 'text/markdown');
    };
    const port = await handlerWith(t, prepare, { ...options, preCompressed: true, multipart: true });
    const variant = await get(port, '/a.txt', { 'Accept-Encoding': 'gzip' });
    t.like(variant.headers, { 'content-encoding': 'gzip', 'content-length': '50', 'content-type': 'text/markdown' });
    t.regex(variant.headers.vary as string, /origin, ?accept-encoding/i);
    const parts = await get(port, '/a.txt', { Range: 'bytes=0-1,10-11' });
    t.is(parts.status, 206);
    t.regex(parts.headers['content-type'] as string, /^multipart\/byteranges/);
  });

  test(`a status that was set before is kept, and its page is sent completely${how}`, async (t) => {
    for (const own of [404, 500, 203, 401]) {
      const prepare = (response: ServerResponse) => {
        response.statusCode = own;
      };
      const port = await handlerWith(t, prepare, options);
      const { headers } = await get(port, '/404.html');
      for (const fields of [
        {},
        { 'If-None-Match': headers.etag as string },
        { 'If-None-Match': '*' },
        { 'If-Match': '"other"' },
        { 'If-Modified-Since': 'Sat, 01 Jan 2050 00:00:00 GMT' },
        { 'If-Unmodified-Since': 'Sat, 01 Jan 2000 00:00:00 GMT' },
        { Range: 'bytes=0-1' },
        { Range: 'bytes=99-' },
      ]) {
        const { status, body } = await get(port, '/404.html', fields as Record<string, string>);
        t.is(status, own, JSON.stringify(fields));
        t.deepEqual(body, pattern(20), JSON.stringify(fields));
      }
    }
  });
}

test('an error page sent by the plugin is complete', async (t) => {
  for (const conformance of ['fastify-static', 'rfc9110'] as const) {
    for (const options of [{}, { onFile }]) {
      const app = fastify();
      t.teardown(() => app.close());
      await app.register(fastifyStatic, { root: files(t), serve: false, conformance, ...options });
      app.setNotFoundHandler((_request, reply) => reply.code(404).sendFile('404.html'));
      app.get('/created', (_request, reply) => reply.code(201).sendFile('a.txt'));
      const { etag } = (await app.inject('/nothing')).headers;
      for (const headers of [
        { 'if-none-match': etag },
        { 'if-match': '"x"' },
        { range: 'bytes=0-1' },
        { range: 'bytes=99-' },
      ]) {
        const response = await app.inject({ url: '/nothing', headers });
        t.is(response.statusCode, 404);
        t.deepEqual(response.rawPayload, pattern(20), JSON.stringify(headers));
      }
      // As in @fastify/static, unless conformance is 'rfc9110'.
      const created = await app.inject({ url: '/created', headers: { range: 'bytes=0-1' } });
      t.is(created.statusCode, 201);
      t.is(created.rawPayload.length, conformance === 'rfc9110' ? 100 : 2);
    }
  }
});

test.serial('parameters of a response do not open another site', async (t) => {
  const root = files(t);
  const binding = engine() as { openSite(settings: unknown): number };
  const { openSite } = binding;
  let opened = 0;
  binding.openSite = (settings) => {
    opened += 1;
    return openSite.call(binding, settings);
  };
  t.teardown(() => {
    binding.openSite = openSite;
  });
  for (const options of [{}, { onFile }]) {
    const app = fastify();
    await app.register(fastifyStatic, { root, serve: false, ...options });
    app.get<{ Params: { at: string } }>('/:kind/:at', (request, reply) => {
      const { kind, at } = request.params as unknown as { kind: string; at: string };
      return send(reply, kind, Number(at));
    });
    await app.ready();
    opened = 0;
    for (let at = 0; at < 90; at += 1) {
      const slice = await app.inject(`/slice/${at}`);
      t.deepEqual(slice.rawPayload, pattern(100).subarray(at, at + 10));
      const limited = await app.inject({ url: `/limit/${at + 1}`, headers: { range: 'bytes=5-' } });
      t.deepEqual(limited.rawPayload, pattern(100).subarray(5, 5 + at + 1));
      t.is((await app.inject(`/age/${at}`)).headers['cache-control'], `public, max-age=${at}`);
      t.is((await app.inject(`/both/${at}`)).headers['cache-control'], `public, max-age=${at}, immutable`);
    }
    t.is(opened, 1, 'only the site for `immutable` is opened');
    t.true((app.zerosend.stats().cache?.files ?? 9) <= 2, 'files of at most two sites are cached');
    for (const wrong of ['/slice/-1', '/slice/0.5', '/limit/-1'])
      t.is((await app.inject(wrong)).statusCode, 500, wrong);
    await app.close();
  }
});

function send(reply: FastifyReply, kind: string, at: number): FastifyReply {
  switch (kind) {
    case 'slice':
      return reply.sendFile('a.txt', { start: at, end: at + 9 });
    case 'limit':
      return reply.sendFile('a.txt', { maxContentRangeChunkSize: at });
    case 'age':
      return reply.sendFile('a.txt', { maxAge: at * 1000 });
    default:
      return reply.sendFile('a.txt', { maxage: `${at}s`, immutable: true, start: at });
  }
}

test.serial('roots of single responses keep a bounded number of sites open', async (t) => {
  const root = files(t);
  const binding = engine() as { openSite(settings: unknown): number; release(token: number): void };
  const { openSite, release } = binding;
  const open = new Set<number>();
  let max = 0;
  binding.openSite = (settings) => {
    const token = openSite.call(binding, settings);
    open.add(token);
    max = Math.max(max, open.size);
    return token;
  };
  binding.release = (token) => {
    open.delete(token);
    release.call(binding, token);
  };
  t.teardown(() => {
    binding.openSite = openSite;
    binding.release = release;
  });
  for (const options of [{}, { onFile }]) {
    const app = fastify();
    await app.register(fastifyStatic, { root, serve: false, ...options });
    app.get<{ Params: { at: string } }>('/:at', (request, reply) =>
      // Different roots each time.
      reply.sendFile('a.txt', { root: [root, `/nothing/${request.params.at}`] }),
    );
    for (let at = 0; at < 300; at += 1) t.is((await app.inject(`/${at}`)).statusCode, 200);
    await app.close();
  }
  t.true(max <= 70, `${max} sites were open at once`);
  t.is(open.size, 0);
});
