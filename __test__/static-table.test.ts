/** The behavior of `@fastify/static` 10 as tables, over a socket and with `inject()`. */
import { mkdirSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';

import test, { type ExecutionContext } from 'ava';
import fastify, { type FastifyInstance, type RouteOptions } from 'fastify';
import fastifyStatic, { errors, type FastifyStaticOptions, type ListFile } from 'zerosend/fastify';

import { scratch } from './support/files.js';
import { get, portOf, type WireResponse } from './support/wire.js';

const serial = test.serial;
const DATE = new Date(1_700_000_000_000);
const LATER = new Date(DATE.getTime() + 60_000).toUTCString();
const EARLIER = new Date(DATE.getTime() - 60_000).toUTCString();
const ETAG = `W/"a-${DATE.getTime().toString(16)}"`;

function site(t: ExecutionContext): string {
  const root = scratch(t);
  const files: Record<string, string | Buffer> = {
    'a.txt': '0123456789',
    'empty.txt': '',
    'index.html': '<home>',
    'page.html': '<page>',
    'app.js': 'plain',
    'app.js.gz': gzipSync('gzipped'),
    'app.js.br': 'br',
    '.env': 'SECRET',
    '.git/config': 'git',
    'dir/index.html': '<dir>',
    'dir/deep/b.txt': 'b',
    'bare/c.txt': 'c',
    'bare/#odd?.txt': 'odd',
  };
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(join(root, name, '..'), { recursive: true });
    writeFileSync(join(root, name), content);
    utimesSync(join(root, name), DATE, DATE);
  }
  return root;
}

interface Both {
  app: FastifyInstance;
  /** Makes a request over a socket and with `inject()`, and checks that the responses are equal. */
  ask(
    path: string,
    headers?: Record<string, string>,
    method?: 'GET' | 'HEAD' | 'POST' | 'OPTIONS',
  ): Promise<WireResponse>;
}

async function serve(
  t: ExecutionContext,
  options: FastifyStaticOptions,
  prepare?: (app: FastifyInstance) => unknown,
): Promise<Both> {
  const app = fastify();
  await prepare?.(app);
  await app.register(fastifyStatic, options);
  await app.listen({ port: 0, host: '127.0.0.1' });
  t.teardown(() => app.close());
  const port = portOf(app.server);
  return {
    app,
    async ask(path, headers = {}, method = 'GET') {
      const wire = await get(port, path, headers, method);
      const injected = await app.inject({ method, url: path, headers });
      t.is(injected.statusCode, wire.status, `${method} ${path} through inject()`);
      t.deepEqual(injected.rawPayload, wire.body, `${method} ${path} through inject()`);
      const wanted = { ...wire.headers };
      const found = { ...injected.headers } as Record<string, string>;
      for (const name of ['date', 'connection', 'keep-alive', 'transfer-encoding']) {
        delete wanted[name];
        delete found[name];
      }
      t.deepEqual({ ...found }, wanted, `${method} ${path} through inject()`);
      return wire;
    },
  };
}

type Row = [
  options: Omit<FastifyStaticOptions, 'root'>,
  path: string,
  headers: Record<string, string>,
  status: number,
  body: string | undefined,
  expected?: Record<string, string | undefined>,
];

serial('options of @fastify/send', async (t) => {
  const root = site(t);
  const rows: Row[] = [
    [
      {},
      '/a.txt',
      {},
      200,
      '0123456789',
      {
        'accept-ranges': 'bytes',
        'cache-control': 'public, max-age=0',
        etag: ETAG,
        'last-modified': DATE.toUTCString(),
        'content-type': 'text/plain; charset=utf-8',
        'content-length': '10',
      },
    ],
    [
      { acceptRanges: false },
      '/a.txt',
      { Range: 'bytes=0-1' },
      200,
      '0123456789',
      { 'accept-ranges': undefined, 'content-range': undefined },
    ],
    [
      { cacheControl: false, maxAge: 1000, immutable: true },
      '/a.txt',
      {},
      200,
      undefined,
      { 'cache-control': undefined },
    ],
    [{ maxAge: 5000 }, '/a.txt', {}, 200, undefined, { 'cache-control': 'public, max-age=5' }],
    [
      { maxAge: '1d', immutable: true },
      '/a.txt',
      {},
      200,
      undefined,
      { 'cache-control': 'public, max-age=86400, immutable' },
    ],
    [{ maxAge: '10y' }, '/a.txt', {}, 200, undefined, { 'cache-control': 'public, max-age=31536000' }],
    [{ maxAge: 'nonsense' }, '/a.txt', {}, 200, undefined, { 'cache-control': 'public, max-age=0' }],
    [{ contentType: false }, '/a.txt', {}, 200, '0123456789', { 'content-type': undefined }],
    [{ etag: false }, '/a.txt', { 'If-None-Match': ETAG }, 200, undefined, { etag: undefined }],
    [{ lastModified: false }, '/a.txt', { 'If-Modified-Since': LATER }, 200, undefined, { 'last-modified': undefined }],
    [{}, '/.env', {}, 200, 'SECRET'],
    [{}, '/.git/config', {}, 200, 'git'],
    [{ dotfiles: 'deny' }, '/.env', {}, 403, '{"statusCode":403,"error":"Forbidden","message":"Forbidden"}'],
    [{ dotfiles: 'ignore' }, '/.git/config', {}, 404, undefined],
    [{}, '/page', {}, 404, undefined],
    [{ extensions: ['txt', 'html'] }, '/page', {}, 200, '<page>'],
    [{ extensions: ['html'] }, '/page.x', {}, 404, undefined],
    [{}, '/', {}, 200, '<home>'],
    [{ index: ['nope', 'page.html'] }, '/', {}, 200, '<page>'],
    [{ index: false }, '/', {}, 403, undefined],
    [{}, '/dir', {}, 200, '<dir>', { location: undefined }],
    [{}, '/dir/', {}, 200, '<dir>'],
    [{}, '/bare', {}, 404, undefined],
    [{ redirect: true }, '/dir', {}, 301, '', { location: '/dir/' }],
    [{ redirect: true }, '/dir?a=1', {}, 301, '', { location: '/dir/?a=1' }],
    [{ redirect: true, prefix: '/p' }, '/p', {}, 301, '', { location: '/p/' }],
    [{ prefix: '/p' }, '/p/a.txt', {}, 200, '0123456789'],
    [{ prefix: '/p', prefixAvoidTrailingSlash: true }, '/p/a.txt', {}, 200, '0123456789'],
    [{ prefix: '/:user/f' }, '/jane/f/a.txt', {}, 200, '0123456789'],
    [{ allowedPath: (path) => path !== '/a.txt' }, '/a.txt', {}, 404, undefined],
    [{ allowedPath: (path) => path !== '/dir/index.html' }, '/dir/', {}, 404, undefined],
    [{ allowedPath: (path) => path !== '/dir/' }, '/dir', {}, 404, undefined],
    [{ extensions: ['html'], allowedPath: (path) => path !== '/page.html' }, '/page', {}, 404, undefined],
    [
      { preCompressed: true, allowedPath: (path) => !path.endsWith('.gz') },
      '/app.js',
      { 'Accept-Encoding': 'gzip' },
      200,
      undefined,
      { 'content-encoding': 'gzip' },
    ],
    [
      { onFile: () => Promise.reject(Object.assign(new Error('no'), { statusCode: 402 })) },
      '/a.txt',
      {},
      402,
      undefined,
    ],
    [
      { preCompressed: true },
      '/app.js',
      { 'Accept-Encoding': 'gzip, br' },
      200,
      'br',
      { 'content-encoding': 'br', vary: 'accept-encoding', 'content-type': 'application/javascript; charset=utf-8' },
    ],
    [
      { preCompressed: true },
      '/app.js',
      { 'Accept-Encoding': 'br;q=0.1, gzip' },
      200,
      undefined,
      { 'content-encoding': 'gzip' },
    ],
    [{ preCompressed: true }, '/app.js', { 'Accept-Encoding': '*' }, 200, undefined, { 'content-encoding': 'gzip' }],
    [{ preCompressed: true }, '/app.js', {}, 200, 'plain', { 'content-encoding': undefined, vary: 'accept-encoding' }],
    [
      { preCompressed: true },
      '/a.txt',
      { 'Accept-Encoding': 'gzip' },
      200,
      '0123456789',
      { 'content-encoding': undefined, vary: 'accept-encoding' },
    ],
    [
      { preCompressed: true },
      '/app.js',
      { 'Accept-Encoding': 'br', Range: 'bytes=0-0' },
      206,
      'b',
      { 'content-range': 'bytes 0-0/2' },
    ],
    [
      { setHeaders: (reply) => void reply.header('vary', 'origin'), preCompressed: true },
      '/a.txt',
      {},
      200,
      undefined,
      { vary: 'origin, accept-encoding' },
    ],
    [
      { setHeaders: (reply) => void reply.header('vary', '*'), preCompressed: true },
      '/a.txt',
      {},
      200,
      undefined,
      { vary: '*' },
    ],
    [
      { setHeaders: (reply) => void reply.header('vary', 'Accept-Encoding'), preCompressed: true },
      '/a.txt',
      {},
      200,
      undefined,
      { vary: 'Accept-Encoding' },
    ],
    [
      { setHeaders: (reply) => void reply.header('etag', '"mine"').code(203) },
      '/a.txt',
      {},
      203,
      '0123456789',
      { etag: '"mine"' },
    ],
    [
      {
        setHeaders: (reply, path, stat) =>
          void reply.header('x', `${path.slice(root.length)} ${stat.size} ${stat.isFile()}`),
      },
      '/dir',
      {},
      200,
      undefined,
      { x: '/dir/index.html 5 true' },
    ],
  ];
  for (const [options, path, headers, status, body, expected = {}] of rows) {
    const { app, ask } = await serve(t, { root, ...options });
    const response = await ask(path, headers);
    const name = `${JSON.stringify(options)} ${path}`;
    t.is(response.status, status, name);
    if (body !== undefined) t.is(response.body.toString(), body, name);
    for (const [key, value] of Object.entries(expected)) t.is(response.headers[key], value, `${name}: ${key}`);
    await app.close();
  }
});

serial('raw requests', async (t) => {
  const root = site(t);
  symlinkSync('/does/not/exist', join(root, 'dangling'));
  const outside = scratch(t);
  writeFileSync(join(outside, 'x'), 'outside');
  symlinkSync(outside, join(root, 'out'));
  const { ask } = await serve(t, { root });
  const range = (text: string) => ({ Range: `bytes=${text}` });
  const rows: [string, Record<string, string>, number, string | undefined, Record<string, string>?][] = [
    ['/a.txt', range('0-0'), 206, '0', { 'content-range': 'bytes 0-0/10', 'content-length': '1' }],
    ['/a.txt', range('-3'), 206, '789', { 'content-range': 'bytes 7-9/10' }],
    ['/a.txt', range('0-3,2-6'), 206, '0123456', { 'content-range': 'bytes 0-6/10' }],
    ['/a.txt', range('0-1,5-6'), 200, '0123456789'],
    ['/a.txt', range('-30'), 416, undefined, { 'content-range': 'bytes */10' }],
    [
      '/a.txt',
      range('20-'),
      416,
      '{"statusCode":416,"error":"Range Not Satisfiable","message":"Range Not Satisfiable"}',
    ],
    ['/a.txt', range('5-2'), 416, undefined],
    ['/a.txt', range('abc'), 416, undefined],
    ['/empty.txt', range('0-0'), 200, ''],
    ['/a.txt', { Range: 'items=0-1' }, 200, '0123456789'],
    ['/a.txt', { Range: 'BYTES=0-1' }, 200, '0123456789'],
    ['/a.txt', { ...range('0-1'), 'If-Range': EARLIER }, 200, undefined],
    ['/a.txt', { ...range('0-1'), 'If-Range': '"x"' }, 200, undefined],
    ['/a.txt', { ...range('0-1'), 'If-Range': ETAG }, 206, '01'],
    [
      '/a.txt',
      { 'If-None-Match': ETAG },
      304,
      '',
      { etag: ETAG, 'cache-control': 'public, max-age=0', 'accept-ranges': 'bytes' },
    ],
    ['/a.txt', { 'If-None-Match': ETAG.slice(2) }, 304, ''],
    ['/a.txt', { 'If-None-Match': '*' }, 304, ''],
    ['/a.txt', { 'If-None-Match': '"x"', 'If-Modified-Since': LATER }, 200, undefined],
    ['/a.txt', { 'If-None-Match': ETAG, 'Cache-Control': 'no-cache' }, 200, undefined],
    ['/a.txt', { 'If-Modified-Since': LATER }, 304, ''],
    [
      '/a.txt',
      { 'If-Match': '"x"' },
      412,
      '{"statusCode":412,"error":"Precondition Failed","message":"Precondition Failed"}',
    ],
    ['/a.txt', { 'If-Unmodified-Since': EARLIER }, 412, undefined],
    ['/nope', {}, 404, '{"message":"Route GET:/nope not found","error":"Not Found","statusCode":404}'],
    ['/a.txt/', {}, 404, undefined],
    ['/a.txt/x', {}, 404, undefined],
    ['/dangling', {}, 404, undefined],
    ['/out/x', {}, 200, 'outside'],
    [`/${'x'.repeat(99)}`, {}, 404, undefined],
    ['/dir%2findex.html', {}, 404, undefined],
  ];
  for (const [path, headers, status, body, expected = {}] of rows) {
    const response = await ask(path, headers);
    const name = `${path} ${JSON.stringify(headers)}`;
    t.is(response.status, status, name);
    if (body !== undefined) t.is(response.body.toString(), body, name);
    for (const [key, value] of Object.entries(expected)) t.is(response.headers[key], value, `${name}: ${key}`);
    if (status === 304) t.false('content-type' in response.headers || 'content-length' in response.headers, name);
    if (status === 200 || status === 206) {
      const head = await ask(path, headers, 'HEAD');
      t.like({ ...head, body: head.body.length }, { status, body: 0 }, name);
      t.is(head.headers['content-length'], response.headers['content-length'], name);
    }
  }
  t.is((await ask('/a.txt', {}, 'POST')).status, 404);
  t.is((await ask('/a.txt', {}, 'OPTIONS')).status, 404);
});

serial('hostile paths return 403 with the code, 404 or 400, no file, and no path of the server', async (t) => {
  const root = site(t);
  const { ask, app } = await serve(t, { root, prefix: '/s', redirect: true }, (app) => {
    app.addHook('onRequest', async (request, reply) => {
      if (request.url.startsWith('/s/dir/')) return reply.code(401).send('guarded');
    });
  });
  const forbidden = [
    '/s/../a.txt',
    '/s/%2e%2e/a.txt',
    '/s/%2E%2e/a.txt',
    '/s/.%2e/a.txt',
    '/s/deep/../dir/index.html',
    '/s//dir/index.html',
    '/s/./dir/index.html',
    '/s/%2e/dir/index.html',
    '/s/dir%5cindex.html',
    '/s/\\dir\\index.html',
    '/s/a.txt%00',
    '/s/%00',
    '/s//',
    '/s/a.txt/.',
    `/s/${'x'.repeat(300)}`,
  ];
  const port = portOf(app.server);
  for (const path of forbidden) {
    const { status, body } = await get(port, path);
    t.deepEqual([status, JSON.parse(body.toString()).code], [403, 'FST_STATIC_FORBIDDEN_PATH'], path);
    t.false(body.includes(root));
  }
  for (const path of ['/s/%zz', '/s/%', '/s/%e0%a4%a', '/s/%ff', '/s/%c0%ae%c0%ae/a.txt'])
    t.is((await get(port, path)).status, 400, path);
  for (const path of ['/s/dir%2findex.html', '/s/%252e%252e/a.txt', '/s/..;/a.txt', '/s/...', '/s-sibling/a.txt'])
    t.is((await get(port, path)).status, 404, path);
  for (const path of ['/s/dir', '/s/dir?x=//evil.example']) {
    const { status, headers } = await ask(path);
    t.is(status, 301);
    t.regex(headers.location as string, /^\/s\/dir\/(?:\?|$)/);
  }
  const bare = await serve(t, { root, redirect: true });
  for (const path of ['//dir', '/\\dir', '//evil.example/..', '///dir', '/%5cdir'])
    t.is((await get(portOf(bare.app.server), path)).status, 403, path);
});

serial('long, reversed and overflowing Range headers are processed quickly', async (t) => {
  const root = site(t);
  const { app } = await serve(t, { root });
  const port = portOf(app.server);
  const start = performance.now();
  const many = (spec: (at: number) => string) => Array.from({ length: 1000 }, (_, at) => spec(at)).join(',');
  const rows: [string, number][] = [
    [many(() => '0-0'), 206],
    [many((at) => `${at % 5 === 0 ? 0 : 5}-${at % 5 === 0 ? 0 : 5}`), 200],
    [many((at) => `${at + 10}-${at + 11}`), 416],
    ['9223372036854775807-9223372036854775808', 416],
    ['0-99999999999999999999999999', 206],
    ['-99999999999999999999999999', 416],
    ['', 416],
    [',', 416],
  ];
  for (const [set, status] of rows)
    t.is((await get(port, '/a.txt', { Range: `bytes=${set}` })).status, status, set.slice(0, 40));
  t.true(performance.now() - start < 2000);
});

serial('routes: constraints, logLevel, schemaHide, serve, decorateReply, several registrations', async (t) => {
  const root = site(t);
  const routes: RouteOptions[] = [];
  const { app, ask } = await serve(
    t,
    { root, constraints: { host: 'one.example' }, logLevel: 'warn', prefix: '/one' },
    (app) => app.addHook('onRoute', (route) => void routes.push(route)),
  );
  t.is((await ask('/one/a.txt', { Host: 'one.example' })).status, 200);
  t.is((await ask('/one/a.txt', { Host: 'two.example' })).status, 404);
  const [route] = routes;
  t.deepEqual([route?.method, route?.url, route?.logLevel], [['HEAD', 'GET'], '/one/*', 'warn'] as unknown[]);
  t.like(route?.schema, { hide: true });
  t.true(app.hasReplyDecorator('sendFile') && app.hasReplyDecorator('download'));

  const second = fastify();
  await second.register(fastifyStatic, { root, serve: false });
  await second.register(fastifyStatic, {
    root: join(root, 'dir'),
    prefix: '/dir',
    decorateReply: false,
    schemaHide: false,
  });
  second.get('/file', (_request, reply) => reply.sendFile('a.txt'));
  t.is((await second.inject('/file')).body, '0123456789');
  t.is((await second.inject('/dir/deep/b.txt')).body, 'b');
  t.is((await second.inject('/a.txt')).statusCode, 404);
  await second.close();
  const twice = fastify();
  await twice.register(fastifyStatic, { root });
  await t.throwsAsync(async () => await twice.register(fastifyStatic, { root, prefix: '/x' }), {
    any: true,
    code: 'FST_ERR_DEC_ALREADY_PRESENT',
  });
});

serial('several roots, file: URLs, and wildcard: false', async (t) => {
  const [one, two] = [site(t), site(t)];
  writeFileSync(join(two, 'a.txt'), 'second');
  writeFileSync(join(two, 'only.txt'), 'only');
  const asked: string[] = [];
  const roots = await serve(t, {
    root: [pathToFileURL(one), two],
    allowedPath(path, root, request) {
      asked.push(`${request.method} ${path} ${root === one ? 1 : root === two ? 2 : root}`);
      return path !== '/page.html' || root === two;
    },
  });
  t.is((await roots.ask('/a.txt')).body.toString(), '0123456789');
  asked.length = 0;
  t.is((await get(portOf(roots.app.server), '/only.txt')).body.toString(), 'only');
  t.deepEqual(asked, ['GET /only.txt 1', 'GET /only.txt 2'], 'the roots are tried in order');
  t.is((await roots.ask('/page.html')).status, 404, 'a path refused for one root is not looked up in the next');

  const each = await serve(t, {
    root: [one, two],
    wildcard: false,
    globIgnore: ['page.html'],
    redirect: true,
    prefix: '/w',
  });
  t.is((await each.ask('/w/only.txt')).body.toString(), 'only');
  t.is((await each.ask('/w/dir/')).body.toString(), '<dir>');
  t.like(await each.ask('/w/dir'), { status: 301 });
  t.is((await each.ask('/w/page.html')).status, 404);
  t.is((await each.ask('/w/.env')).status, 404);
  writeFileSync(join(one, 'new.txt'), 'new');
  t.is((await each.ask('/w/new.txt')).status, 404, 'files created later have no route');
  const dots = await serve(t, { root: one, wildcard: false, serveDotFiles: true });
  t.is((await dots.ask('/.env')).body.toString(), 'SECRET');
});

serial('listings: JSON and HTML, names, extended information, hidden entries', async (t) => {
  const root = site(t);
  const names = await serve(t, { root, list: { format: 'json', names: ['index.json', '/'] }, dotfiles: 'ignore' });
  const wanted = {
    dirs: ['bare', 'dir'],
    files: ['a.txt', 'app.js', 'app.js.br', 'app.js.gz', 'empty.txt', 'index.html', 'page.html'],
  };
  t.deepEqual(JSON.parse((await names.ask('/index.json')).body.toString()), wanted);
  t.deepEqual(JSON.parse((await names.ask('/bare/')).body.toString()), { dirs: [], files: ['#odd?.txt', 'c.txt'] });
  t.deepEqual(JSON.parse((await names.ask('/bare')).body.toString()), { dirs: [], files: ['#odd?.txt', 'c.txt'] });
  t.is((await names.ask('/')).body.toString(), '<home>', 'an index takes precedence');
  t.is((await names.ask('/nope/')).status, 404);
  t.is((await names.ask('/bare?format=html')).status, 500);

  const html = await serve(t, {
    root,
    prefix: '/h',
    list: {
      format: 'html',
      names: ['list'],
      extendedFolderInfo: true,
      render: (dirs, files) =>
        `${dirs.map(({ href, extendedInfo }) => `${href} ${extendedInfo?.totalFileCount}`)};${files.map(({ href, name }: ListFile) => `${href} ${name}`)}`,
    },
  });
  const response = await html.ask('/h/bare');
  t.is(response.body.toString(), ';/h/bare/%23odd%3F.txt #odd?.txt,/h/bare/c.txt c.txt');
  t.is(response.headers['content-type'], 'text/html');
  t.regex((await html.ask('/h/dir/list')).body.toString(), /^\/h\/dir\/deep 1;/);
  t.deepEqual(JSON.parse((await html.ask('/h/bare?format=json')).body.toString()).dirs, []);

  const extended = await serve(t, { root, index: false, list: { format: 'json', jsonFormat: 'extended' } });
  const { files } = JSON.parse((await extended.ask('/bare/')).body.toString());
  t.is(files[1].stats.size, 1);
  t.is(files[1].stats.mtimeMs, statSync(join(root, 'bare/c.txt')).mtimeMs);

  symlinkSync('../a.txt', join(root, 'bare', 'inside'));
  // Absolute links are not beneath the root, openat2(2): the file is not served.
  symlinkSync(join(root, 'a.txt'), join(root, 'bare', 'absolute'));
  symlinkSync('/etc/hostname', join(root, 'bare', 'outside'));
  const beneath = await serve(t, { root, list: true, symlinks: 'beneath' });
  t.deepEqual(JSON.parse((await beneath.ask('/bare')).body.toString()).files, ['#odd?.txt', 'c.txt', 'inside']);
  const deny = await serve(t, { root, list: true, symlinks: 'deny' });
  t.deepEqual(JSON.parse((await deny.ask('/bare')).body.toString()).files, ['#odd?.txt', 'c.txt']);
});

serial('reply.sendFile and reply.download', async (t) => {
  const root = site(t);
  const refused: string[] = [];
  const { ask } = await serve(
    t,
    { root, serve: false, allowedPath: (path) => !(path.includes('page') && refused.push(path)) },
    (app) => {
      app.get('/plain', (_request, reply) => reply.sendFile('a.txt'));
      app.get('/other', (_request, reply) => reply.sendFile('index.html', join(root, 'dir')));
      app.get('/options', (_request, reply) => reply.sendFile('a.txt', { maxAge: '1h', acceptRanges: false }));
      app.get('/all', (_request, reply) => reply.sendFile('index.html', join(root, 'dir'), { etag: false }));
      app.get('/status', (_request, reply) => reply.code(201).sendFile('a.txt'));
      app.get('/up', (_request, reply) => reply.sendFile('../a.txt'));
      app.get('/guarded', (_request, reply) => reply.sendFile('page.html'));
      app.get('/slice', (_request, reply) => reply.sendFile('a.txt', { start: 2, end: 6 }));
      app.get('/chunk', (_request, reply) => reply.sendFile('a.txt', { maxContentRangeChunkSize: 2 }));
      app.get('/wrong', (_request, reply) => reply.sendFile('a.txt', { dotfiles: 'x' as 'allow' }));
      app.get('/download', (_request, reply) => reply.download('dir/deep/b.txt'));
      app.get('/named', (_request, reply) => reply.download('a.txt', 'ß→.txt', { maxAge: 1000 }));
      app.get('/root', (_request, reply) => reply.download('index.html', { root: join(root, 'dir') }));
    },
  );
  t.is((await ask('/plain')).body.toString(), '0123456789');
  t.is((await ask('/other')).body.toString(), '<dir>');
  t.like((await ask('/options')).headers, { 'cache-control': 'public, max-age=3600' });
  t.false('etag' in (await ask('/all')).headers);
  t.like(await ask('/status', { Range: 'bytes=0-1' }), { status: 201, headers: { 'content-range': 'bytes 0-1/10' } });
  t.is((await ask('/up')).status, 403);
  t.is((await ask('/guarded')).status, 404);
  t.deepEqual(new Set(refused), new Set(['page.html']));
  t.is((await ask('/slice')).body.toString(), '23456');
  t.like(await ask('/slice', { Range: 'bytes=1-2' }), {
    status: 206,
    body: Buffer.from('34'),
    headers: { 'content-range': 'bytes 1-2/5' },
  });
  t.like(await ask('/chunk', { Range: 'bytes=3-' }), {
    status: 206,
    body: Buffer.from('34'),
    headers: { 'content-range': 'bytes 3-4/10' },
  });
  t.is((await ask('/wrong')).status, 500);
  t.is((await ask('/download')).headers['content-disposition'], 'attachment; filename=b.txt');
  t.is(
    (await ask('/named')).headers['content-disposition'],
    `attachment; filename="??.txt"; filename*=UTF-8''%C3%9F%E2%86%92.txt`,
  );
  t.is((await ask('/root')).body.toString(), '<dir>');

  const bare = await serve(t, { serve: false }, (app) => {
    app.get('/absolute', (_request, reply) => reply.sendFile(join(root, 'a.txt')));
    app.get('/relative', (_request, reply) => reply.sendFile('a.txt'));
  });
  t.is((await bare.ask('/absolute')).body.toString(), '0123456789');
  t.is((await bare.ask('/relative')).status, 404);
});

serial('invalid options fail at registration with the documented codes', async (t) => {
  const root = site(t);
  const rows: [object, string, RegExp, ErrorConstructor?][] = [
    [{}, 'FST_STATIC_INVALID_OPTION', /^"root" option is required$/],
    [{ root: 'relative' }, 'FST_STATIC_INVALID_OPTION', /^"root" option must be an absolute path$/],
    [{ root: join(root, 'a.txt') }, 'FST_STATIC_INVALID_OPTION', /^"root" option must be a directory$/],
    [{ root: [] }, 'FST_STATIC_INVALID_OPTION', /^"root" option array requires one or more paths$/],
    [{ root: [root, root] }, 'FST_STATIC_INVALID_OPTION', /^"root" option array contains duplicate paths$/],
    [
      { root: 42 },
      'FST_STATIC_INVALID_OPTION_VALUE',
      /^"root" option must be a string or array of strings$/,
      TypeError,
    ],
    [{ root: [42] }, 'FST_STATIC_INVALID_OPTION_VALUE', /^"root" option must be a string$/, TypeError],
    [
      { root, setHeaders: 'x' },
      'FST_STATIC_INVALID_OPTION_VALUE',
      /^"setHeaders" option must be a function$/,
      TypeError,
    ],
    [{ root, wildcard: 'x' }, 'FST_STATIC_INVALID_OPTION_VALUE', /^"wildcard" option must be a boolean$/],
    [
      { root: [root], list: true },
      'FST_STATIC_MULTIROOT_LIST_CONFLICT',
      /^multi-root with list option is not supported$/,
      TypeError,
    ],
    [
      { root, list: { format: 'xml' } },
      'FST_STATIC_INVALID_OPTION_VALUE',
      /^"list.format" option must be json or html$/,
    ],
    [{ root, list: { names: 'x' } }, 'FST_STATIC_INVALID_OPTION_VALUE', /^"list.names" option must be an array$/],
    [
      { root, list: { jsonFormat: 'x' } },
      'FST_STATIC_INVALID_OPTION_VALUE',
      /^"list.jsonFormat" option must be names or extended$/,
    ],
    [
      { root, list: { format: 'html' } },
      'FST_STATIC_INVALID_OPTION_VALUE',
      /^"list.render" option must be a function and is required with html format$/,
    ],
    [{ root, dotfiles: 'x' }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid dotfiles 'x'.* one of allow, deny, ignore/],
    [{ root, symlinks: 'x' }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid symlinks 'x'.* one of follow, beneath, deny/],
    [{ root, conformance: 'x' }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid conformance 'x'/],
    [
      { root, etag: 'x' },
      'ERR_ZEROSEND_INVALID_ARGUMENT',
      /invalid etag 'x': use true, false, 'weak', 'strong' or 'content'/,
    ],
    [{ root, immutable: 'x' }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid immutable 'x'/],
    [{ root, multipart: 1 }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid multipart 1: use/],
    [{ root, preCompressed: ['lzma'] }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid preCompressed 'lzma'.* one of zstd/],
    [{ root, cacheControl: { '{': 'x' } }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid cacheControl pattern '\{'/],
    [{ root, cacheControl: { '*': 'a\r\nb: c' } }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /cacheControl\['\*'\]/],
    [{ root, fallback: '../x' }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid fallback '\.\.\/x'/],
    [{ root, index: 42 }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid index 42/],
    [{ root, method: 'magic' }, 'ERR_ZEROSEND_INVALID_ARGUMENT', /invalid method 'magic'/],
  ];
  for (const [options, code, message, Type = Error] of rows) {
    const error = (await Promise.resolve(fastify().register(fastifyStatic, options as FastifyStaticOptions)).then(
      () => undefined,
      (error: unknown) => error,
    )) as NodeJS.ErrnoException | undefined;
    t.is(error?.code, code, JSON.stringify(options));
    t.regex(error?.message as string, message);
    t.true(error instanceof Type, JSON.stringify(options));
  }
  t.is(new errors.FST_STATIC_FORBIDDEN_PATH().statusCode, 403);
  await t.notThrowsAsync(async () => await fastify().register(fastifyStatic, { root: join(root, 'not-yet') }));
});

serial('ERR_STREAM_PREMATURE_CLOSE in a route of the plugin only closes the connection', async (t) => {
  const root = site(t);
  const { app } = await serve(t, {
    root,
    onFile: () => {
      throw Object.assign(new Error('Premature close'), { code: 'ERR_STREAM_PREMATURE_CLOSE' });
    },
  });
  await t.throwsAsync(get(portOf(app.server), '/a.txt'), { message: /without a response/ });
});
