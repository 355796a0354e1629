/**
 * Sends the same requests to `@fastify/static` and to zerosend, and compares status, headers and bytes. Each difference must be
 * listed here and have a section with the same title in docs/migration.md.
 */
import { mkdirSync, readFileSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';

import theirs, { type FastifyStaticOptions as TheirOptions } from '@fastify/static';
import test, { type ExecutionContext } from 'ava';
import fastify, { type FastifyInstance } from 'fastify';
import ours, { type FastifyStaticOptions } from 'zerosend/fastify';

import { pattern, scratch } from './support/files.js';
import { exchange, parseResponses, portOf, type WireResponse } from './support/wire.js';

interface Shape {
  method?: string;
  path: string;
  headers?: Record<string, string>;
}

interface Setup {
  name: string;
  options: FastifyStaticOptions;
  prepare?: (app: FastifyInstance) => void;
  shapes: Shape[];
}

/** The differences by title, and the requests that show them. */
const DIFFERENCES: Record<string, (setup: Setup, shape: Shape) => boolean> = {
  'A 304 for a compressed file has no content headers': ({ options }, { headers = {} }) =>
    options.preCompressed === true && 'Accept-Encoding' in headers && 'If-None-Match' in headers,
  'A directory in one root does not hide the next root': ({ name }, { path }) =>
    name === 'two roots' && path.startsWith('/bare'),
  'Parameters of the prefix are checked too': ({ name }, { path }) =>
    name.startsWith('prefix with a parameter') && path.includes('%00'),
  'A directory named by an absolute path is answered': ({ name }, { path }) =>
    name === 'decorators without a root' && path === '/directory',
  'An index given as a string is found everywhere': ({ options }, { path }) =>
    typeof options.index === 'string' && /^\/(?:dir.*)?$/.test(path),
  'A circular symbolic link is forbidden': (_setup, { path }) => path.endsWith('/circle'),
  'Invalid names are rejected before the file system is accessed': (_setup, { path }) =>
    /\/(?:nope|a\.txt)\/(?:%00|x{300})/.test(path),
  'Only HTTP dates are accepted': (_setup, { headers = {} }) =>
    Object.values(headers).some((value) => value.startsWith('2023-')),
  'Direct children are counted separately from the whole tree': ({ options }, { path }) =>
    typeof options.list === 'object' && options.list.extendedFolderInfo === true && path.includes('list'),
  'Ranges of an empty file': (_setup, { path, headers = {} }) => path.includes('empty') && 'Range' in headers,
  'Colons in file names': ({ options }, { path }) => options.wildcard === false && path.startsWith('/w/co'),
  'Reserved characters in a name may be escaped': (_setup, { path }) => /%(?:24|26|2b|2c|3a|3b|3d|40)/i.test(path),
};

/** Differences that no request of this test shows. */
const OTHERS = [
  'Only regular files are served',
  'Malformed input during a download',
  'Truncated files',
  'Error pages are sent completely',
  'Disk errors are not sent to clients',
  'Invalid option values are rejected',
  'Asterisks in file names',
  'Case-insensitive file systems',
  'Meaningless modification times',
  'Other differences',
];

const DATE = new Date(1_700_000_000_250);

function tree(t: ExecutionContext): { root: string; second: string } {
  const base = scratch(t);
  const [root, second] = [join(base, 'root'), join(base, 'second')] as const;
  const text = 'console.log("hello");\n'.repeat(200);
  const files: Record<string, string | Buffer> = {
    'root/index.html': '<h1>home</h1>',
    'root/a.txt': '0123456789',
    'root/empty.css': '',
    'root/page.html': '<page>',
    'root/both': 'plain',
    'root/both.html': 'with extension',
    'root/big.bin': pattern(300_000),
    'root/app.js': text,
    'root/app.js.gz': gzipSync(text),
    'root/app.js.br': brotliCompressSync(text),
    'root/app.js.deflate': deflateSync(text),
    'root/only.css.gz': gzipSync('only'),
    'root/with space.txt': 'space',
    'root/ünï.txt': 'letters',
    'root/100%.txt': 'percent',
    'root/a#b?.txt': 'odd',
    'root/a+b;c=d,e@f$g&h.txt': 'reserved',
    'root/noext': 'no extension',
    'root/UPPER.TXT': 'upper',
    'root/data.json': '{}',
    'root/image.svg': '<svg/>',
    'root/x.unknown': '?',
    'root/.env': 'SECRET=1',
    'root/.well-known/x.json': '{"a":1}',
    'root/co:lon.txt': 'colon',
    'root/dir/index.html': '<dir>',
    'root/dir/index.html.gz': gzipSync('<dir>'),
    'root/dir/b.txt': 'b',
    'root/mixed/index.html': '<mixed>',
    'root/bare/c.txt': 'c',
    'root/bare/deeper/d.txt': 'd',
    'root/nested/index.html/file': 'x',
    'second/a.txt': 'second a',
    'second/other.txt': 'other',
    'second/bare/index.html': '<second bare>',
    'outside/secret.txt': 'outside',
  };
  for (const [name, content] of Object.entries(files)) {
    const path = join(base, name);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, content);
    utimesSync(path, DATE, DATE);
  }
  symlinkSync(join(base, 'outside'), join(root, 'out'));
  symlinkSync('/does/not/exist', join(root, 'dangling'));
  symlinkSync('circle', join(root, 'circle'));
  return { root, second };
}

const PATHS = [
  '/',
  '/index.html',
  '/a.txt',
  '/a.txt?query=1',
  '/a.txt/',
  '/a.txt/x',
  '/empty.css',
  '/page.html',
  '/page',
  '/both',
  '/both.html',
  '/app.js',
  '/app.js.gz',
  '/only.css',
  '/only.css.gz',
  '/with%20space.txt',
  '/%C3%BCn%C3%AF.txt',
  '/100%25.txt',
  '/a%23b%3F.txt',
  '/a+b;c=d,e@f$g&h.txt',
  '/a%2Bb%3Bc%3Dd%2Ce%40f%24g%26h.txt',
  '/noext',
  '/UPPER.TXT',
  '/upper.txt',
  '/data.json',
  '/image.svg',
  '/x.unknown',
  '/.env',
  '/.well-known/x.json',
  '/dir',
  '/dir/',
  '/dir?x=1',
  '/dir/b.txt',
  '/dir/index.html',
  '/bare',
  '/bare/',
  '/bare/c.txt',
  '/bare/deeper',
  '/nested',
  '/nested/',
  '/nested/index.html',
  '/nested/index.html/file',
  '/nope',
  '/nope/',
  '/nope.txt',
  '/nope/at/all',
  '/out/secret.txt',
  '/dangling',
  '//a.txt',
  '//',
  '///',
  '/dir//b.txt',
  '/./a.txt',
  '/../a.txt',
  '/dir/../a.txt',
  '/dir/./b.txt',
  '/%2e/a.txt',
  '/%2e%2e/a.txt',
  '/dir/%2e%2e/a.txt',
  '/dir%2fb.txt',
  '/dir%2Fb.txt',
  '/dir%5cb.txt',
  '/dir\\b.txt',
  '/a.txt%00',
  '/%00',
  '/a.txt%20',
  '/%zz',
  '/%',
  '/%e0%a4%a',
  '/%ff.txt',
  '/a.txt%3Fx',
  '/a.txt#x',
  '/a.txt;x',
  '/...',
  '/.../a.txt',
  '/..a.txt',
  '/a.txt..',
  `/${'x'.repeat(90)}`,
  '/dir/.',
  '/dir/..',
  '/dir/%2e',
  '/%61.txt',
  '/%2561.txt',
  '//example.com/',
  '//example.com/%2e%2e',
  '/\\example.com/',
  '/dir/?format=json',
  '/bare?format=html',
  '/bare/deeper/?format=json',
  '/index.json',
  '/bare/index.json',
  '/bare/list',
  '/list',
  '/circle',
  '/nope/%00',
  `/nope/${'x'.repeat(300)}`,
  `/${'x'.repeat(99)}`,
  '/co:lon.txt',
];

const RANGES = [
  '0-0',
  '0-4',
  '5-',
  '-3',
  '-30',
  '-0',
  '-10',
  '9-',
  '10-',
  '20-',
  '5-2',
  'abc',
  '',
  '-',
  '0-0,2-2',
  '0-3,2-6',
  '0-3,4-6',
  '4-6,0-3',
  '0-0,-1',
  '0-, 0-',
  ' 0-1',
  '0 - 1',
  '0-1,',
  ',0-1',
  '00-01',
  '0-99999999999999999999',
  '99999999999999999999-',
  '-99999999999999999999',
  '0x1-2',
  '1.5-3',
  '+1-+3',
  '--1',
  '1-2-3',
  '0-1;x',
  '0-1,5-2',
  '5-2,0-1',
  '100-200,0-1',
  '9-9',
  '0-9',
  '0-10',
  `${'0-0,'.repeat(50)}1-1`,
]
  .map((range) => `bytes=${range}`)
  .concat('items=0-1', 'BYTES=0-1', 'bytes 0-1', 'bytes', '', '  bytes=0-1', 'bytes =0-1');

function conditions(etag: string): Record<string, string>[] {
  const [at, before, after] = [0, -60_000, 60_000].map((ms) => new Date(DATE.getTime() + ms).toUTCString()) as [
    string,
    string,
    string,
  ];
  const strong = etag.replace('W/', '');
  const tags = [
    etag,
    strong,
    '*',
    '"other"',
    `"other", ${etag}`,
    `${strong},"other"`,
    '',
    'nonsense',
    etag.toLowerCase(),
  ];
  const dates = [at, before, after, 'nonsense', '', new Date(0).toUTCString(), '2023-11-15'];
  const all: Record<string, string>[] = [];
  for (const tag of tags) {
    all.push({ 'If-None-Match': tag }, { 'If-Match': tag }, { 'If-Range': tag, Range: 'bytes=0-1' });
    all.push({ 'If-None-Match': tag, 'Cache-Control': 'no-cache' }, { 'If-None-Match': tag, Range: 'bytes=0-1' });
    for (const date of dates.slice(0, 3)) {
      all.push({ 'If-None-Match': tag, 'If-Modified-Since': date }, { 'If-Match': tag, 'If-Unmodified-Since': date });
    }
  }
  for (const date of dates) {
    all.push({ 'If-Modified-Since': date }, { 'If-Unmodified-Since': date }, { 'If-Range': date, Range: 'bytes=2-3' });
    all.push(
      { 'If-Modified-Since': date, 'If-Unmodified-Since': date },
      { 'If-Modified-Since': date, Range: 'bytes=0-1' },
    );
  }
  return all;
}

const ENCODINGS = [
  'gzip',
  'br',
  'deflate',
  'gzip, br',
  'br;q=0.1, gzip',
  'gzip;q=0',
  '*',
  '*;q=0',
  'identity',
  'identity, gzip;q=0.5',
  '',
  'zstd',
  'GZIP',
  'x-gzip',
  'gzip;q=0.5, br;q=0.5',
  'br;q=1.0,gzip;q=0.8,*;q=0.1',
  'deflate, gzip;q=1.0, *;q=0.5',
  'gzip ; q=0.3',
  ',,',
  'nonsense;;q=',
];

function shapes(paths: string[], variants: Shape[] = [{ path: '' }]): Shape[] {
  return paths.flatMap((path) => variants.map((variant) => ({ ...variant, path })));
}

const GET_AND_HEAD: Shape[] = [
  { path: '', method: 'GET' },
  { path: '', method: 'HEAD' },
];

function setups(root: string, second: string): Setup[] {
  const file = readFileSync(join(root, 'a.txt'));
  const etag = `W/"${file.length.toString(16)}-${DATE.getTime().toString(16)}"`;
  const listPaths = [
    '/',
    '/dir',
    '/dir/',
    '/bare',
    '/bare/',
    '/bare/list',
    '/list',
    '/nope/list',
    '/a.txt',
    '/nope',
    '/bare?format=json',
    '/bare?format=html',
    '/bare/deeper',
    '/.well-known',
    '/bare/index.json',
    '/with%20space.txt/list',
  ];
  return [
    {
      name: 'defaults',
      options: { root },
      shapes: [
        ...shapes(PATHS, GET_AND_HEAD),
        ...shapes(
          ['/a.txt', '/nope'],
          ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'TRACE'].map((method) => ({ path: '', method })),
        ),
        ...shapes(
          ['/a.txt'],
          RANGES.flatMap((Range) => GET_AND_HEAD.map((one) => ({ ...one, headers: { Range } }))),
        ),
        ...shapes(
          ['/empty.css', '/big.bin'],
          RANGES.map((Range) => ({ path: '', headers: { Range } })),
        ),
        ...shapes(
          ['/a.txt'],
          conditions(etag).flatMap((headers) => GET_AND_HEAD.map((one) => ({ ...one, headers }))),
        ),
        ...shapes(
          ['/app.js'],
          ENCODINGS.map((coding) => ({ path: '', headers: { 'Accept-Encoding': coding } })),
        ),
      ],
    },
    {
      name: 'prefix, redirect, extensions, caching',
      options: { root, prefix: '/files', redirect: true, extensions: ['html', 'txt'], maxAge: '1d', immutable: true },
      shapes: [
        ...shapes(
          PATHS.map((path) => `/files${path}`),
          GET_AND_HEAD,
        ),
        ...shapes([
          '/files',
          '/files?x=1',
          '/file',
          '/a.txt',
          '/FILES/a.txt',
          '/%66iles/a.txt',
          '//files/a.txt',
          '/files/dir?x=%2f',
        ]),
      ],
    },
    {
      name: 'compressed',
      options: { root, prefix: '/z', preCompressed: true },
      shapes: [
        ...shapes(
          ['/z/app.js', '/z/only.css', '/z/a.txt', '/z/nope', '/z/app.js.gz', '/z/dir', '/z/mixed', '/z/bare'],
          ENCODINGS.map((coding) => ({ path: '', headers: { 'Accept-Encoding': coding } })),
        ),
        ...shapes(
          ['/z/dir/', '/z/mixed/', '/z/bare/'],
          ['gzip', 'br', 'identity', 'gzip, br'].map((coding) => ({
            path: '',
            headers: { 'Accept-Encoding': coding },
          })),
        ),
        ...shapes(
          ['/z/app.js'],
          RANGES.slice(0, 12).map((Range) => ({ path: '', headers: { Range, 'Accept-Encoding': 'gzip' } })),
        ),
        ...shapes(
          ['/z/app.js'],
          [
            { path: '', method: 'HEAD', headers: { 'Accept-Encoding': 'br' } },
            { path: '', headers: { 'If-None-Match': '*', 'Accept-Encoding': 'br' } },
          ],
        ),
      ],
    },
    {
      name: 'index as a string',
      options: { root, index: 'index.html', preCompressed: true },
      shapes: shapes(
        ['/', '/dir', '/dir/', '/bare', '/a.txt'],
        [{ path: '' }, { path: '', headers: { 'Accept-Encoding': 'gzip' } }],
      ),
    },
    {
      name: 'list and redirect',
      options: { root, list: true, redirect: true },
      shapes: shapes(['/bare', '/bare/', '/nope', '/a.txt', '/dir/']),
    },
    {
      name: 'dot files denied',
      options: { root, dotfiles: 'deny', index: false },
      shapes: shapes([
        '/.env',
        '/.well-known/x.json',
        '/.nope',
        '/',
        '/dir',
        '/dir/',
        '/a.txt',
        '/bare/',
        '/..a.txt',
        '/.env/',
      ]),
    },
    {
      name: 'dot files ignored, headers off',
      options: {
        root,
        dotfiles: 'ignore',
        etag: false,
        lastModified: false,
        cacheControl: false,
        acceptRanges: false,
        contentType: false,
        index: ['nope.html', 'page.html', 'index.html'],
      },
      shapes: [
        ...shapes(['/.env', '/.well-known/x.json', '/', '/dir', '/dir/', '/a.txt', '/nested/'], GET_AND_HEAD),
        ...shapes(
          ['/a.txt'],
          [
            ...RANGES.slice(0, 6).map((Range) => ({ path: '', headers: { Range } })),
            ...conditions(etag).map((headers) => ({ path: '', headers })),
          ],
        ),
      ],
    },
    {
      name: 'two roots',
      options: { root: [root, second] },
      shapes: shapes(
        ['/a.txt', '/other.txt', '/nope', '/', '/dir/', '/second', '/bare', '/bare/', '/bare/index.html'],
        GET_AND_HEAD,
      ),
    },
    {
      name: 'two roots, guarded',
      options: {
        root: [root, second],
        allowedPath: (path, base, request) =>
          !path.includes('b.txt') && !(base === root && path === '/other.txt') && request.method !== 'HEAD',
      },
      shapes: shapes(['/a.txt', '/other.txt', '/dir/b.txt', '/nope', '/', '/dir'], GET_AND_HEAD),
    },
    {
      name: 'guarded',
      options: { root, extensions: ['html'], allowedPath: (path) => !/index\.html$|both|^\/\.env$/.test(path) },
      shapes: shapes([
        '/',
        '/dir',
        '/dir/',
        '/page',
        '/both',
        '/both.html',
        '/.env',
        '/%2eenv',
        '/a.txt',
        '//a.txt',
        '/nope',
      ]),
    },
    {
      name: 'list',
      options: { root, list: true, prefix: '/l' },
      shapes: shapes(
        listPaths.filter((path) => !path.includes('html')).map((path) => `/l${path}`),
        GET_AND_HEAD,
      ),
    },
    {
      name: 'list with names',
      options: {
        root,
        prefix: '/l/',
        dotfiles: 'ignore',
        list: {
          format: 'html',
          names: ['list', 'index.json', '/'],
          extendedFolderInfo: true,
          render: (dirs, files) =>
            JSON.stringify({
              dirs: dirs.map(({ href, name, extendedInfo, stats }) => ({
                href,
                name,
                extendedInfo,
                size: stats.mtimeMs,
              })),
              files: files.map(({ href, name, stats }) => ({ href, name, size: stats.size })),
            }),
        },
      },
      shapes: shapes(listPaths.map((path) => `/l${path}`)),
    },
    {
      name: 'list, extended json, no index',
      options: { root, index: false, list: { format: 'json', jsonFormat: 'extended', names: ['list'] } },
      shapes: shapes(['/bare', '/bare/', '/dir/', '/bare/list', '/nope/', '/bare/deeper/', '/bare?format=html']),
    },
    {
      name: 'a route for each file',
      options: { root, wildcard: false, prefix: '/w', globIgnore: ['**/big.bin'], redirect: true },
      shapes: shapes(
        [
          '/w',
          '/w/',
          '/w/a.txt',
          '/w/dir',
          '/w/dir/',
          '/w/dir/b.txt',
          '/w/big.bin',
          '/w/.env',
          '/w/nope',
          '/w/with%20space.txt',
          '/w/bare/',
          '/w/out/secret.txt',
          '/w/dir//b.txt',
          '/w/100%25.txt',
          '/w/%C3%BCn%C3%AF.txt',
          '/w/co:lon.txt',
          '/w/column.txt',
        ],
        GET_AND_HEAD,
      ),
    },
    {
      name: 'a route for each file of two roots',
      options: { root: [root, second], wildcard: false, serveDotFiles: true },
      shapes: shapes(['/', '/a.txt', '/other.txt', '/.env', '/dir/', '/dir', '/bare/', '/bare']),
    },
    {
      name: 'prefix with a parameter, no slash',
      options: { root, prefix: '/:tenant/s', prefixAvoidTrailingSlash: false },
      shapes: shapes([
        '/one/s/a.txt',
        '/one/s/',
        '/one/s',
        '//s/a.txt',
        '/../s/a.txt',
        '/%2e%2e/s/a.txt',
        '/a%2fb/s/a.txt',
        '/one%00/s/a.txt',
        '/o%5cne/s/a.txt',
        '/ünï/s/a.txt',
        '/%C3%BC/s/a.txt',
        '/one/s/../a.txt',
        '/one/s//a.txt',
      ]),
    },
    {
      name: 'prefix without slash',
      options: { root, prefix: '/p', prefixAvoidTrailingSlash: true, redirect: true },
      shapes: shapes(['/p', '/p/', '/p/a.txt', '/pa.txt', '/p/dir', '/pdir', '/p//a.txt', '/p/../a.txt']),
    },
    {
      name: 'setHeaders and onFile',
      options: {
        root,
        preCompressed: true,
        onFile: async (path) => {
          await Promise.resolve();
          if (path.endsWith('data.json')) throw Object.assign(new Error('not today'), { statusCode: 418 });
        },
        setHeaders: (reply, path, stat) =>
          void reply
            .header('x-file', `${path.slice(root.length)} ${stat.size}`)
            .header('vary', 'origin')
            .header('cache-control', 'private')
            .header('content-type', 'x/y'),
      },
      shapes: shapes(
        ['/a.txt', '/app.js', '/data.json', '/dir', '/nope'],
        [
          { path: '' },
          { path: '', headers: { 'Accept-Encoding': 'gzip' } },
          { path: '', headers: { 'If-None-Match': '*' } },
          { path: '', headers: { Range: 'bytes=0-1' } },
          { path: '', headers: { Range: 'bytes=99999-' } },
        ],
      ),
    },
    {
      name: 'reply.sendFile and reply.download',
      options: { root, serve: false, maxAge: 1000 },
      prepare(app) {
        app.get('/one', (_request, reply) => reply.sendFile('a.txt'));
        app.get('/slash', (_request, reply) => reply.sendFile('/a.txt'));
        app.get('/percent', (_request, reply) => reply.sendFile('100%.txt'));
        app.get('/encoded', (_request, reply) => reply.sendFile('with%20space.txt'));
        app.get('/space', (_request, reply) => reply.sendFile('with space.txt'));
        app.get('/hash', (_request, reply) => reply.sendFile('a#b?.txt'));
        app.get('/second', (_request, reply) => reply.sendFile('other.txt', second));
        app.get('/options', (_request, reply) => reply.sendFile('a.txt', { maxAge: '2d', etag: false }));
        app.get('/three', (_request, reply) => reply.sendFile('other.txt', second, { immutable: true }));
        app.get('/undefined', (_request, reply) => reply.sendFile('a.txt', { maxAge: undefined } as object));
        app.get('/status', (_request, reply) => reply.code(201).sendFile('a.txt'));
        app.get('/up', (_request, reply) => reply.sendFile('../a.txt'));
        app.get('/upslash', (_request, reply) => reply.sendFile('/../a.txt'));
        app.get('/inner-up', (_request, reply) => reply.sendFile('dir/../a.txt'));
        app.get('/dot', (_request, reply) => reply.sendFile('./a.txt'));
        app.get('/empty', (_request, reply) => reply.sendFile(''));
        app.get('/dir', (_request, reply) => reply.sendFile('dir'));
        app.get('/dir-slash', (_request, reply) => reply.sendFile('dir/'));
        app.get('/nope', (_request, reply) => reply.sendFile('nope'));
        app.get('/nul', (_request, reply) => reply.sendFile('a\0b'));
        app.get('/backslash', (_request, reply) => reply.sendFile('dir\\b.txt'));
        app.get('/slice', (_request, reply) => reply.sendFile('a.txt', { start: 2, end: 6 } as object));
        app.get('/start', (_request, reply) => reply.sendFile('a.txt', { start: 7, highWaterMark: 2 } as object));
        app.get('/chunk', (_request, reply) => reply.sendFile('a.txt', { maxContentRangeChunkSize: 3 } as object));
        app.get('/deny', (_request, reply) => reply.sendFile('.env', { dotfiles: 'deny' }));
        app.get('/ignore', (_request, reply) => reply.sendFile('.env', { dotfiles: 'ignore' }));
        app.get('/download', (_request, reply) => reply.download('a.txt'));
        app.get('/download-dir', (_request, reply) => reply.download('dir/b.txt'));
        app.get('/download-name', (_request, reply) => reply.download('a.txt', 'nämé.txt'));
        app.get('/download-greek', (_request, reply) => reply.download('a.txt', 'αβγ "q".txt'));
        app.get('/download-options', (_request, reply) => reply.download('a.txt', { maxAge: 5000 }));
        app.get('/download-both', (_request, reply) => reply.download('a.txt', 'x.bin', { cacheControl: false }));
        app.get('/download-root', (_request, reply) => reply.download('other.txt', { root: second } as object));
        app.get('/download-nope', (_request, reply) => reply.download('nope'));
        app.get('/async', async (_request, reply) => reply.sendFile('a.txt'));
        app.get('/on-file', (_request, reply) =>
          reply.sendFile('a.txt', { onFile: (path) => void reply.header('x-path', path.slice(root.length)) }),
        );
        app.get('/on-file-throws', (_request, reply) =>
          reply.sendFile('a.txt', { onFile: async () => Promise.reject(new Error('no')) }),
        );
      },
      shapes: shapes(
        [
          'one',
          'slash',
          'percent',
          'encoded',
          'space',
          'hash',
          'second',
          'options',
          'three',
          'undefined',
          'status',
          'up',
          'upslash',
          'inner-up',
          'dot',
          'empty',
          'dir',
          'dir-slash',
          'nope',
          'nul',
          'backslash',
          'slice',
          'start',
          'chunk',
          'deny',
          'ignore',
          'download',
          'download-dir',
          'download-name',
          'download-greek',
          'download-options',
          'download-both',
          'download-root',
          'download-nope',
          'async',
          'on-file',
          'on-file-throws',
        ].map((path) => `/${path}`),
        [
          { path: '' },
          { path: '', method: 'HEAD' },
          { path: '', headers: { Range: 'bytes=1-9' } },
          { path: '', headers: { Range: 'bytes=-2' } },
          { path: '', headers: { Range: 'bytes=20-' } },
          { path: '', headers: { 'If-None-Match': '*' } },
          { path: '', headers: { 'If-Match': '"x"' } },
        ],
      ),
    },
    {
      name: 'decorators without a root',
      options: { serve: false },
      prepare(app) {
        app.get('/absolute', (_request, reply) => reply.sendFile(join(root, 'a.txt')));
        app.get('/absolute-nope', (_request, reply) => reply.sendFile(join(root, 'nope')));
        app.get('/relative', (_request, reply) => reply.sendFile('a.txt'));
        app.get('/given', (_request, reply) => reply.sendFile('a.txt', root));
        app.get('/hidden', (_request, reply) => reply.sendFile(join(root, '.env')));
        app.get('/up', (_request, reply) => reply.sendFile(`${root}/dir/../a.txt`));
        app.get('/directory', (_request, reply) => reply.sendFile(join(root, 'dir')));
      },
      shapes: shapes(
        ['/absolute', '/absolute-nope', '/relative', '/given', '/hidden', '/up', '/directory'],
        GET_AND_HEAD,
      ),
    },
  ];
}

async function start(t: ExecutionContext, plugin: unknown, setup: Setup): Promise<number> {
  const app = fastify({ routerOptions: { ignoreDuplicateSlashes: false } }) as FastifyInstance;
  await app.register(plugin as typeof theirs, { ...setup.options } as TheirOptions);
  setup.prepare?.(app);
  await app.listen({ port: 0, host: '127.0.0.1' });
  t.teardown(() => app.close());
  return portOf(app.server);
}

async function ask(port: number, { method = 'GET', path, headers = {} }: Shape): Promise<WireResponse> {
  const fields = Object.entries({ Host: 'test', Connection: 'close', ...headers }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  const all = await exchange(port, `${method} ${path} HTTP/1.1\r\n${fields.join('')}\r\n`);
  // With a status set by the application, a 304 becomes a chunked response without a body.
  if (/^transfer-encoding: chunked/im.test(all.toString('latin1'))) {
    return { status: 0, headers: {}, body: Buffer.from(all.toString('latin1').replace(/^Date: .*$/m, ''), 'latin1') };
  }
  const [response] = parseResponses(all, [method === 'HEAD']);
  if (response === undefined) throw new Error(`no response to ${method} ${path}`);
  return response;
}

/** The compared properties as text. */
function seen({ status, headers, body }: WireResponse): string {
  const { date, ...rest } = headers;
  const fields = Object.keys(rest)
    .sort()
    .map((name) => `${name}: ${rest[name]}`);
  return [status, ...fields, '', body.toString('latin1')].join('\n');
}

test.serial('responses equal those of @fastify/static except for the documented differences', async (t) => {
  t.timeout(300_000);
  const { root, second } = tree(t);
  let count = 0;
  const shown = new Set<string>();
  const unnamed: string[] = [];
  for (const setup of setups(root, second)) {
    const [one, other] = await Promise.all([start(t, theirs, setup), start(t, ours, setup)]);
    const next = setup.shapes.values();
    const worker = async () => {
      for (const shape of next) {
        const [wanted, found] = (await Promise.all([ask(one, shape), ask(other, shape)])).map(seen);
        const differences = Object.keys(DIFFERENCES).filter((title) => DIFFERENCES[title]?.(setup, shape));
        count += 1;
        if (wanted !== found) {
          for (const title of differences) shown.add(title);
          if (differences.length === 0)
            unnamed.push(`${setup.name}: ${JSON.stringify(shape)}\n${wanted}\n---\n${found}`);
        }
      }
    };
    await Promise.all(Array.from({ length: 8 }, worker));
  }
  t.deepEqual(unnamed, []);
  const sections = [...readFileSync('docs/migration.md', 'utf8').matchAll(/^### (.+)$/gm)].map(([, title]) => title);
  t.deepEqual(
    sections,
    [...Object.keys(DIFFERENCES), ...OTHERS],
    'docs/migration.md and this file list the same differences',
  );
  t.log(`${count} requests`);
  t.true(count >= 300);
  for (const title of Object.keys(DIFFERENCES)) t.true(shown.has(title), `no request showed: ${title}`);
});
