/**
 * Compares the engine for other platforms (lib/streams) with the native one: for the same requests, kind, status, headers, bytes and errors
 * must be equal. Recorded responses of the reference packages are checked, too.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import type { RequestConditions, SiteSettings } from '#native';
import { overridesOf, type SliceOptions } from '../dist/lib/static/overrides.js';
import type { SiteOptions } from '../dist/lib/static/site-options.js';
import { siteSettings } from '../dist/lib/static/site-settings.js';
import { type Encoding, preferences } from '../dist/lib/streams/negotiation.js';
import { decide } from '../dist/lib/streams/range.js';
import { Both, type EngineRequest, liveHandles, type Outcome, settingsErrors } from './support/both-engines.js';
import { openDescriptors, pattern, scratch, settle, settled } from './support/files.js';

const serial = test.serial;
const VECTORS = new URL('../crates/http/tests/vectors/', import.meta.url);
/** A recorded request and response. */
const MODIFIED = 1_700_000_000.25;

interface Tree {
  root: string;
  second: string;
}

function write(path: string, content: string | Buffer, modified = MODIFIED): void {
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, content);
  utimesSync(path, modified, modified);
}

/** Creates the files of the recorded responses in `root`; {@link tree} creates others. */
function plainTree(root: string): void {
  const files = {
    'a.txt': '0123456789',
    'empty.css': '',
    'page.html': '<page>',
    both: 'plain',
    'both.html': 'with extension',
    'dir/index.html': '<index>',
    'bare/file': 'x',
    'nested/index.html/file': 'x',
    '.env': 'SECRET=1',
    '.git/config': 'x',
    'a b#é?.txt': 'odd',
    'app.js': 'plain js',
    'app.js.gz': 'gzip js',
    'app.js.br': 'br js',
    'dir/index.html.gz': 'gzip index',
    'only.css.gz': 'only gzip',
  };
  for (const [name, content] of Object.entries(files)) write(join(root, name), content);
}

function tree(t: ExecutionContext): Tree {
  const base = scratch(t);
  chmodSync(base, 0o755);
  const root = join(base, 'root');
  const second = join(base, 'second');
  plainTree(root);
  write(join(root, 'big.bin'), pattern(300_000));
  write(join(root, 'app.js.zst'), 'zstd js');
  write(join(root, 'app.js.deflate'), 'deflate js');
  write(join(root, 'dir/default.htm'), '<default>');
  write(join(root, 'dir/deep/er/file.tar.gz'), 'deep');
  write(join(root, 'assets/index-BH3kT9aZ.js'), 'hashed');
  write(join(root, 'assets/main.8f3a0c1d.css'), 'hashed');
  write(join(root, 'assets/a-BHkTLaZq.svg'), 'hashed');
  write(join(root, 'assets/my-MyWidget.js'), 'not hashed');
  write(join(root, 'a%20b.txt'), 'percent');
  write(join(root, 'a%2Fb.txt'), 'escaped slash');
  write(join(root, 'a:b;c@d&e=f+g$h,i.txt'), 'reserved');
  write(join(root, 'COLON::$DATA'), 'streams');
  write(join(root, 'ends in a dot.'), 'dot');
  write(join(root, 'ends in a blank '), 'blank');
  write(join(root, '日本語.json'), 'unicode');
  write(join(root, 'e\u0301.txt'), 'decomposed');
  write(join(root, 'UPPER.TXT'), 'upper');
  write(join(root, 'x.m\u212av'), 'kelvin');
  write(join(root, '__proto__'), 'x');
  write(join(root, 'y.__proto__'), 'x');
  write(join(root, 'old.txt'), 'before 1970', -1000.5);
  write(join(root, 'zero.txt'), 'the beginning', 0);
  write(join(root, 'new.txt'), 'far ahead', 9_000_000_000.9996);
  write(join(root, 'round.txt'), 'rounds up', 1_600_000_000.9996);
  write(join(root, `${'n'.repeat(251)}.txt`), 'longest name');
  write(join(second, 'a.txt'), 'second');
  write(join(second, 'second.txt'), 'only second');
  write(join(second, 'bare/index.html'), '<second bare>');
  write(join(second, 'app.js.br'), 'second br');
  write(join(base, 'outside/secret.txt'), 'secret');
  mkdirSync(join(root, 'hollow'));
  const links = {
    in: 'a.txt',
    'dir/up': '../a.txt',
    'dir/around': '../dir/../bare/./file',
    absolute: join(root, 'a.txt'),
    out: '../outside',
    'out.txt': '../outside/secret.txt',
    'out-and-in': '../root/a.txt',
    'absolute-out': join(base, 'outside'),
    dangling: 'nothing/here',
    'dangling-out': '../nothing',
    circle: 'circle',
    'circle-a': 'circle-b',
    'circle-b': 'circle-a',
    folder: 'dir',
    'folder-slash': 'dir/',
    'file-slash': 'a.txt/',
    'file-dot': 'a.txt/.',
    'file-up': 'a.txt/../a.txt',
    here: '.',
    'linked.js.gz': 'app.js.gz',
    'linked.js': 'app.js',
    chain0: 'a.txt',
  };
  for (const [name, target] of Object.entries(links)) symlinkSync(target, join(root, name));
  // 40 links are followed, 41 are not.
  for (let at = 1; at <= 40; at += 1) symlinkSync(`chain${at - 1}`, join(root, `chain${at}`));
  execFileSync('mkfifo', [join(root, 'fifo'), join(root, 'fifo.gz')]);
  // Strong tags are weak for two seconds.
  settle(2100);
  return { root, second };
}

type Options = SiteOptions & SliceOptions;

/** The sites with their settings, and the overrides of their responses. */
function sites({ root, second }: Tree): [string, SiteSettings, RequestConditions | undefined][] {
  const all: [string, Options, Partial<SiteSettings>?, RequestConditions?][] = [
    ['defaults', {}],
    ['rfc9110', { conformance: 'rfc9110' }],
    ['compressed', { preCompressed: true }],
    ['compressed, all codings', { preCompressed: ['zstd', 'br', 'gzip', 'deflate'] }],
    ['compressed, gzip alone, rfc9110', { preCompressed: ['gzip'], conformance: 'rfc9110' }],
    ['compressed, all codings, rfc9110', { preCompressed: ['deflate', 'gzip', 'br', 'zstd'], conformance: 'rfc9110' }],
    ['redirect', { redirect: true }],
    ['listing', {}, { listing: true }],
    ['listing, no index', { index: false }, { listing: true }],
    ['extensions', { extensions: ['txt', 'html'] }],
    ['extensions, compressed', { extensions: ['js', 'html', 'css'], preCompressed: true }],
    ['several indexes', { index: ['default.htm', 'index.html', 'file'] }],
    ['index deep down', { index: ['deep/er/file.tar.gz', 'index.html'] }],
    ['no index', { index: false }],
    ['no index, redirect', { index: false, redirect: true }],
    ['dot files denied', { dotfiles: 'deny' }],
    ['dot files ignored', { dotfiles: 'ignore' }],
    ['links beneath', { symlinks: 'beneath' }],
    ['links beneath, rfc9110, compressed', { symlinks: 'beneath', conformance: 'rfc9110', preCompressed: true }],
    ['links denied', { symlinks: 'deny' }],
    ['links denied, redirect', { symlinks: 'deny', redirect: true }],
    ['fallback', { fallback: 'dir/index.html' }],
    ['fallback, listing', { fallback: 'a.txt' }, { listing: true }],
    ['fallback that is missing', { fallback: 'nope.html' }],
    ['two roots', {}, { roots: [root, second] }],
    ['two roots, fallback', { fallback: 'second.txt', redirect: true }, { roots: [second, root] }],
    ['a missing root and an existing one', { symlinks: 'beneath' }, { roots: [join(root, 'nope'), root] }],
    ['a root that is missing', {}, { roots: [join(root, 'nope')] }],
    ['a root that is a symbolic link', {}, { roots: [join(root, 'folder')] }],
    ['a root that is a symbolic link, links denied', { symlinks: 'deny' }, { roots: [join(root, 'folder')] }],
    ['a root with a slash', { symlinks: 'beneath' }, { roots: [`${root}/`] }],
    ['the root of all', {}, { roots: ['/'] }],
    ['slice', { start: 3, end: 6 }],
    ['slice beyond the end', { start: 100 }],
    ['slice that is empty', { start: 5, end: 4 }],
    ['slice, multipart', { start: 1, multipart: true }],
    ['slice, content tags', { start: 2, etag: 'content' }],
    ['a response with max-age', { cacheControl: { '*.html': 'no-cache' }, immutable: true }, {}, { maxAge: 60 }],
    ['a response with max-age, no cache-control', { cacheControl: false }, {}, { maxAge: 60 }],
    ['a response with tag', {}, {}, { etag: '"own"' }],
    ['a response with tag, no tags, rfc9110', { etag: false, conformance: 'rfc9110' }, {}, { etag: '"own"' }],
    ['a response with tag, content tags', { etag: 'content' }, {}, { etag: 'W/"own"' }],
    ['a response with date', {}, {}, { lastModified: 'Sat, 01 Jan 2022 00:00:00 GMT' }],
    ['a response with date, no dates', { lastModified: false }, {}, { lastModified: 'Sat, 01 Jan 2022 00:00:00 GMT' }],
    ['a response with an invalid date', { conformance: 'rfc9110' }, {}, { lastModified: 'soon' }],
    ['short ranges', { maxContentRangeChunkSize: 3 }],
    ['short ranges, rfc9110, multipart', { maxContentRangeChunkSize: 2, conformance: 'rfc9110', multipart: true }],
    ['multipart', { multipart: true }],
    ['multipart of two, rfc9110', { multipart: 2, conformance: 'rfc9110' }],
    ['multipart, without types', { multipart: true, contentType: false }],
    ['few ranges', {}, { maxRanges: 2 }],
    ['cache rules', { cacheControl: { '*.html': 'no-cache', 'dir/**': 'private', '/a.*': false, '{app,x}.?s': 'x' } }],
    ['cache rules, compressed', { cacheControl: { '*.js': 'js', '*.gz': 'gz' }, preCompressed: true, maxAge: 5000 }],
    ['no cache-control', { cacheControl: false, maxAge: '1d' }],
    ['a day', { maxAge: '1d' }],
    ['immutable', { maxAge: '30d', immutable: true }],
    ['hashed', { immutable: 'hashed', cacheControl: { 'main.*': 'rule' } }],
    ['no tags', { etag: false }],
    ['no tags, rfc9110', { etag: false, conformance: 'rfc9110' }],
    ['content tags', { etag: 'content' }],
    ['content tags, rfc9110, compressed', { etag: 'content', conformance: 'rfc9110', preCompressed: true }],
    ['no dates', { lastModified: false }],
    ['no dates, rfc9110', { lastModified: false, conformance: 'rfc9110' }],
    ['no validators', { lastModified: false, etag: false }],
    ['no types', { contentType: false }],
    ['no types, compressed', { contentType: false, preCompressed: true }],
    ['no types, compressed, rfc9110', { contentType: false, preCompressed: true, conformance: 'rfc9110' }],
    ['no ranges', { acceptRanges: false }],
    ['all escapes', {}, { pathRules: 'full' }],
    [
      'all escapes, rfc9110, all',
      { conformance: 'rfc9110', dotfiles: 'ignore', redirect: true },
      { pathRules: 'full' },
    ],
  ];
  return all.map(([name, options, changes, overrides]) => [
    name,
    // The cache is not compared.
    { ...siteSettings([root], { cache: false, ...options }, false), ...changes },
    overrides ?? overridesOf(options, {}),
  ]);
}

const PATHS = [
  ...['/', '', '//', '/a.txt', 'a.txt', '//a.txt', '/a.txt/', '/a.txt//', '/a.txt/x', '/dir', '/dir/', '/dir//'],
  ...['/dir/index.html', '/dir/default.htm', '/dir/deep', '/dir/deep/er/file.tar.gz', '/bare', '/bare/', '/bare/file'],
  ...['/hollow', '/hollow/', '/nested', '/nested/', '/nested/index.html', '/page', '/page/', '/page.html', '/both'],
  ...['/empty.css', '/big.bin', '/app.js', '/app.js.gz', '/app', '/only.css', '/only', '/nope', '/nope/', '/nope.txt'],
  ...['/nope/nope', '/second.txt', '/second', '/.env', '/.git', '/.git/config', '/.git/', '/dir/.hidden', '/...'],
  ...[
    '/..',
    '/../a.txt',
    '/dir/../a.txt',
    '/dir/..',
    '/.',
    '/./a.txt',
    '/%2e',
    '/%2e%2e/a.txt',
    '/%2E%2E',
    '/dir/%2e.',
  ],
  ...['/dir%2findex.html', '/dir%2Findex.html', '/%2f', '/a%2Fb.txt', '/a%252Fb.txt', '/a%2520b.txt', '/a%20b.txt'],
  ...['/\\', '/dir\\index.html', '/%5c', '/..%5ca.txt', '/a.txt%00', '/%00', '/a.txt\0', '/%', '/%2', '/%zz', '/%e9'],
  ...['/a%20b%23%C3%A9%3F.txt', '/a b#é?.txt', '/%C3%28', '/%f0%9f%98%80', '/%ed%a0%80', '/\ud800', '/\udfff.txt'],
  ...['/%e6%97%a5%e6%9c%ac%e8%aa%9e.json', '/日本語.json', '/e%cc%81.txt', '/%c3%a9.txt', '/%EF%BB%BFa.txt'],
  ...['/a:b;c@d&e=f+g$h,i.txt', '/a%3ab%3bc%40d%26e%3df%2bg%24h%2ci.txt', '/COLON::$DATA', '/ends%20in%20a%20dot.'],
  ...['/ends%20in%20a%20blank%20', '/UPPER.TXT', '/upper.txt', '/UPPER.txt', '/x.m%E2%84%AAv', '/__proto__'],
  ...['/y.__proto__', '/constructor', '/old.txt', '/zero.txt', '/new.txt', '/round.txt', '/a.txt.', '/a.'],
  ...[`/${'n'.repeat(251)}.txt`, `/${'n'.repeat(252)}.txt`, `/${'n'.repeat(251)}`, `/${'n'.repeat(255)}`],
  ...[`/nope/${'n'.repeat(256)}`, `/${'é'.repeat(127)}`, `/${'é'.repeat(128)}`, `/${'%41'.repeat(256)}`],
  ...[`/${'d/'.repeat(2046)}xx`, `/${'d/'.repeat(2047)}xx`, `/${'d/'.repeat(2048)}x`, `/${'d/'.repeat(2000)}`],
  ...['/in', '/dir/up', '/dir/around', '/absolute', '/out', '/out/', '/out/secret.txt', '/out/nope', '/out.txt'],
  ...['/out-and-in', '/absolute-out/secret.txt', '/dangling', '/dangling/', '/dangling/x', '/dangling-out', '/circle'],
  ...['/circle/', '/circle/x', '/circle-a', '/folder', '/folder/', '/folder/up', '/folder/nope', '/folder-slash'],
  ...['/folder-slash/', '/folder-slash/index.html', '/file-slash', '/file-dot', '/file-up', '/here', '/here/'],
  ...['/here/here/a.txt', '/linked.js', '/chain39', '/chain40', '/chain41', '/fifo', '/fifo/', '/fifo/x', '/socket'],
  ...['/assets/index-BH3kT9aZ.js', '/assets/main.8f3a0c1d.css', '/assets/a-BHkTLaZq.svg', '/assets/my-MyWidget.js'],
];

const RANGES = [
  ...[
    'bytes=0-3',
    'bytes=-3',
    'bytes=-30',
    'bytes=20-',
    'bytes=5-2',
    'bytes=abc',
    'items=0-1',
    'BYTES=0-1',
    'bytes=123',
  ],
  ...['bytes=', 'bytes', 'bytes=-', 'bytes=,', 'bytes=0-3,2-6', 'bytes=0-3,5-6', 'bytes=0-3,4-6', 'bytes=5,0-1', ''],
  ...[
    'bytes=0-1,7',
    '  bytes=0-1 ',
    'bytes =0-1',
    'bytes= 0 - 1',
    'bytes=+1-5',
    'bytes=1.5-3',
    'bytes=--5',
    'bytes=-0',
  ],
  ...['bytes=5--3', 'bytes=0--0', 'bytes=0x1-3', 'bytes=99999999999999999999999-', 'bytes=0-99999999999999999999999'],
  ...['bytes=-99999999999999999999999', 'bytes=1-2=3-4', 'bytes=5-6,0-1,2-3', 'bytes=7-8,0-9', 'bytes=0-0,2-2,4-4'],
  ...['bytes=18446744073709551615-18446744073709551614', 'bytes=18446744073709551614-18446744073709551615'],
  ...['bytes=9007199254740993-9007199254740992', 'bytes=8-8, ,\t2-3,,-1', 'bytes=0-0,-1', '\u0085bytes=1-2\u0085'],
  ...[
    '\u00a0bytes=1-2\u00a0',
    'bytes=\u000b1-2',
    'bytes=\u00a01-2',
    'bytes=1é',
    'bytes=é',
    'bytes=1-2é',
    'bytes=0-0,0-0',
  ],
  ...['bytes=000000000000000000000001-2', 'bytes=1-1,3-3,5-5,2-2,4-4', 'bytes=0-,0-,0-', 'bytes=9-9', 'bytes=10-10'],
  `bytes=${Array.from({ length: 40 }, (_, at) => `${at % 10}-${at % 10}`).join(',')}`,
  `bytes=${'0-0,'.repeat(2000)}`,
];

const TAGS = [
  ...[
    'ETAG',
    'OPAQUE',
    '*',
    ' * ',
    '"x"',
    'W/"x"',
    '',
    'ETAG, "x"',
    '"x",ETAG',
    '"x", OPAQUE ,"y"',
    '"a,b", ETAG',
    'x',
  ],
  ...[
    ',,ETAG,,',
    '"x" ETAG',
    'ETAG"',
    '"',
    'W/"',
    'W/',
    '\tETAG\t',
    '\u0085*\u0085',
    '"x"\tETAG, OPAQUE',
    ',\t, W/"y"',
  ],
];

const DATES = [
  ...['DATE', 'Tue, 14 Nov 2023 22:13:20 GMT', 'Tuesday, 14-Nov-23 22:13:20 GMT', 'Tue Nov 14 22:13:20 2023'],
  ...['Tue, 14 Nov 2023 22:13:19 GMT', 'Tue, 14 Nov 2023 22:13:21 GMT', 'Wed, 14 Nov 2023 22:13:20 GMT', '', 'x'],
  ...['Tue, 31 Nov 2023 22:13:20 GMT', 'Tue, 14 Nov 2023 22:13:60 GMT', 'Tue, 14 Nov 2023 24:13:20 GMT', '2023-11-14'],
  ...['Thu, 01 Jan 1970 00:00:00 GMT', 'Wed, 31 Dec 1969 23:59:59 GMT', 'Fri, 31 Dec 9999 23:59:59 GMT', '1700000000'],
  ...[
    'Sunday, 06-Nov-94 08:49:37 GMT',
    'Sun Nov  6 08:49:37 1994',
    'Sun Nov 06 08:49:37 1994',
    'Thursday, 01-Jan-70 00:00:00 GMT',
  ],
  ...[' Tue, 14 Nov 2023 22:13:20 GMT ', '\u0085Tue, 14 Nov 2023 22:13:20 GMT', 'tue, 14 nov 2023 22:13:20 gmt'],
  ...[
    'Thu, 29 Feb 2024 00:00:00 GMT',
    'Wed, 29 Feb 2023 00:00:00 GMT',
    'Tue,  14 Nov 2023 22:13:20 GMT',
    'Tue, 14 Nov 2023 22:13:20 UTC',
  ],
];

const CODINGS = [
  ...[
    '',
    'gzip',
    'br',
    'deflate',
    'zstd',
    '*',
    'gzip, deflate, br, zstd',
    'gzip;q=0',
    'br;q=0.5, gzip',
    'GZIP',
    '*;q=0',
  ],
  ...['gzip;q=0.90, br;q=0.9', 'identity', 'br;q=0, *', 'gzip;q=2,br', 'br;q=1.0', 'deflate;q=.5,gzip;q=0.50', 'g zip'],
  ...[
    'gzip br',
    'gzip;a b',
    'br ; q=0.1 , gzip;q=0.2',
    'x*y',
    'gzip;level=9',
    'br;q=1.0.5',
    'x-gzip',
    'X-GZip;Q=0.4,br;q=.3',
  ],
  ...['identity;q=0.5, gzip;q=0.4', 'identity, *;q=0.1', 'gzip;q=1.001', 'gzip;q=0.1234', 'br;q=0.001,gzip;q=0.002'],
  ...['gzip;é,br', 'gzip;a,br', 'gzip;aé,br', 'é gzip', 'gzip;q=0.123456789012345678901, br;q=0.1234567890123456789'],
];

/** Single conditions, and combinations. */
function conditions(): RequestConditions[] {
  const all: RequestConditions[] = [{}];
  for (const range of RANGES) all.push({ range });
  for (const tag of TAGS) all.push({ ifMatch: tag }, { ifNoneMatch: tag }, { range: 'bytes=1-2', ifRange: tag });
  for (const date of DATES) {
    all.push({ ifModifiedSince: date }, { ifUnmodifiedSince: date }, { range: 'bytes=1-2', ifRange: date });
  }
  for (const acceptEncoding of CODINGS) all.push({ acceptEncoding }, { acceptEncoding, ifNoneMatch: 'ETAG' });
  all.push(
    { ifNoneMatch: 'ETAG', cacheControl: 'no-cache' },
    { ifNoneMatch: 'ETAG', cacheControl: 'max-age=0' },
    { ifModifiedSince: 'DATE', cacheControl: 'x, no-cache' },
    { ifNoneMatch: '"x"', ifModifiedSince: 'DATE' },
    { ifNoneMatch: 'ETAG', ifMatch: '"x"' },
    { ifMatch: 'ETAG', ifUnmodifiedSince: 'Thu, 01 Jan 1970 00:00:00 GMT' },
    { ifMatch: '', ifUnmodifiedSince: '' },
    { ifMatch: '', ifNoneMatch: '*' },
    { ifMatch: 'ETAG', range: 'bytes=1-2,4-5' },
    { ifNoneMatch: '"x"', range: 'bytes=20-' },
    { acceptEncoding: 'gzip', range: 'bytes=1-2' },
    { ifRange: '"x"' },
  );
  return all;
}

/** Makes all requests with both engines, and reports the first differences. */
async function compare(t: ExecutionContext, requests: Iterable<[string, Both, EngineRequest]>): Promise<number> {
  const wrong: unknown[] = [];
  let count = 0;
  const next = requests[Symbol.iterator]();
  const worker = async () => {
    for (let item = next.next(); !item.done && wrong.length < 5; item = next.next()) {
      const [name, both, request] = item.value;
      const [native, portable] = await both.send(request);
      count += 1;
      if (!same(native, portable)) wrong.push({ site: name, request, native, portable });
    }
  };
  await Promise.all(Array.from({ length: 16 }, worker));
  t.deepEqual(wrong, []);
  return count;
}

const same = (a: Outcome, b: Outcome): boolean => a.body === b.body && ordered(a) === ordered(b);

/** The result without the body. */
function ordered({ answer, error }: Outcome): string {
  return JSON.stringify([Object.entries(answer ?? {}).sort(), error]);
}

serial('responses of all sites to all paths are the same', async (t) => {
  const made = tree(t);
  const listener = createServer().listen(join(made.root, 'socket'));
  t.teardown(() => listener.close());
  const before = openDescriptors();
  const all = sites(made).map(([name, ...site]) => [name, new Both(...site)] as const);
  const count = await compare(
    t,
    (function* () {
      let at = 0;
      for (const [name, both] of all) {
        for (const path of PATHS) {
          at += 1;
          yield [name, both, { path }];
          if (at % 3 === 0) yield [name, both, { path, encoded: false, headOnly: true }];
          if (at % 3 === 1)
            yield [
              name,
              both,
              { path, conditions: { acceptEncoding: 'gzip, deflate, br, zstd', range: 'bytes=1-2,4-5' } },
            ];
        }
      }
    })(),
  );
  t.true(count > 10_000, `${count} requests`);
  for (const [, both] of all) both.close();
  t.is(liveHandles(), 0);
  await settled(t, before);
});

serial('responses of all sites to all conditions are the same', async (t) => {
  const made = tree(t);
  const all = sites(made).map(([name, ...site]) => [name, new Both(...site)] as const);
  const count = await compare(
    t,
    (function* () {
      let at = 0;
      for (const [number, [name, both]] of all.entries()) {
        for (const condition of conditions()) {
          at += 1;
          // All requests for the first sites, a third of them for the others.
          if (number >= 12 && (at + number) % 3 !== 0) continue;
          // Every fourth request is HEAD.
          const path = condition.acceptEncoding === undefined ? '/a.txt' : '/app.js';
          yield [name, both, { path, headOnly: at % 4 === 0, conditions: condition }];
        }
      }
      for (const [name, both] of all.slice(0, 3)) {
        for (const range of RANGES) yield [name, both, { path: '/empty.css', conditions: { range } }];
        for (const acceptEncoding of CODINGS) yield [name, both, { path: '/dir', conditions: { acceptEncoding } }];
      }
    })(),
  );
  t.true(count > 6000, `${count} requests`);
  for (const [, both] of all) both.close();
});

serial('responses to 20,000 random requests are the same', async (t) => {
  const made = tree(t);
  const random = generator(20_261_125);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const several = (list: readonly string[], max: number, between: readonly string[]): string => {
    const length = 1 + Math.floor(random() * max);
    return Array.from({ length }, (_, at) => (at === 0 ? '' : pick(between)) + pick(list)).join('');
  };
  const SEGMENTS = ['a.txt', 'dir', 'index.html', '..', '.', '%2e', '%2E%2e', 'nope', 'in', 'out', 'folder', 'circle'];
  const PIECES = [
    ...SEGMENTS,
    '',
    '%',
    '%2f',
    '%5c',
    '%00',
    'é',
    '%C3%A9',
    '%c3',
    'A.TXT',
    'here',
    'app.js',
    '.env',
    ' ',
  ];
  const NUMBERS = [
    '0',
    '1',
    '2',
    '5',
    '9',
    '10',
    '11',
    '-1',
    '299999',
    '300000',
    '99999999999999999999',
    '',
    'x',
    ' 3',
    '+4',
  ];
  const SPECS = ['-', '--', '', ' - ', '-1-'];
  const randomDate = () =>
    `${pick(['Tue', 'Mon', 'Tuesday', 'Sunday'])}${pick([', ', ' ', ','])}${pick(['14', '31', ' 6', '06', '0'])}${pick([' ', '-'])}` +
    `${pick(['Nov', 'Feb', 'nov'])}${pick([' ', '-'])}${pick(['2023', '23', '1970', '69', '9999'])} ${pick(['22:13:20', '00:00:00', '24:00:00'])} GMT`;
  const parts: Partial<Record<keyof RequestConditions, () => string>> = {
    range: () =>
      pick([
        () => pick(RANGES),
        () =>
          `${pick(['bytes=', 'bytes=', 'bytes=', ' bytes=', 'Bytes='])}` +
          Array.from({ length: 1 + Math.floor(random() * 5) }, () => pick(NUMBERS) + pick(SPECS) + pick(NUMBERS)).join(
            pick([',', ', ', ',,', ' ']),
          ),
      ])(),
    ifMatch: () => several(TAGS, 3, [',', ', ', ' ', '']),
    ifNoneMatch: () => several(TAGS, 3, [',', ', ', ' ', '']),
    ifModifiedSince: () => pick([() => pick(DATES), randomDate])(),
    ifUnmodifiedSince: () => pick([() => pick(DATES), randomDate])(),
    ifRange: () => pick([() => pick(DATES), () => pick(TAGS), randomDate])(),
    cacheControl: () => pick(['no-cache', 'max-age=0', 'No-Cache', '']),
    acceptEncoding: () =>
      pick([
        () => pick(CODINGS),
        () =>
          several(
            [
              'gzip',
              'br',
              'zstd',
              'deflate',
              '*',
              'identity',
              'x',
              'é',
              ';q=0',
              ';q=1',
              'q',
              '=',
              '0.5',
              ';',
              ' ',
              '.',
            ],
            8,
            [',', ';', ';q=', '', ' '],
          ),
      ])(),
  };
  const all = sites(made).map(([name, ...site]) => [name, new Both(...site)] as const);
  const count = await compare(
    t,
    (function* () {
      for (let at = 0; at < 20_000; at += 1) {
        const [name, both] = pick(all);
        const path = random() < 0.5 ? pick(PATHS) : `/${several(PIECES, 4, ['/', '/', '/', '//', '\\', ''])}`;
        const chosen = Object.entries(parts).filter(() => random() < 0.25);
        const condition = Object.fromEntries(chosen.map(([field, make]) => [field, make()]));
        const request = { path, encoded: random() < 0.8, headOnly: random() < 0.2, conditions: condition };
        yield [name, both, request];
      }
    })(),
  );
  t.is(count, 20_000);
  for (const [, both] of all) both.close();
  t.is(liveHandles(), 0);
});

serial('responses for unreadable files and directories are the same', async (t) => {
  const { root } = tree(t);
  write(join(root, 'unreadable.txt'), 'x');
  write(join(root, 'unreadable.txt.gz'), 'x');
  write(join(root, 'app.css'), 'plain');
  write(join(root, 'app.css.gz'), 'x');
  write(join(root, 'closed/file'), 'x');
  write(join(root, 'unlisted/index.html'), 'x');
  symlinkSync('closed/file', join(root, 'to-closed'));
  symlinkSync('unreadable.txt', join(root, 'to-unreadable'));
  for (const name of ['unreadable.txt', 'unreadable.txt.gz', 'app.css.gz']) chmodSync(join(root, name), 0);
  chmodSync(join(root, 'closed'), 0);
  chmodSync(join(root, 'unlisted'), 0o711);
  const restore = dropPrivileges();
  try {
    const names = [
      'unreadable.txt',
      'app.css',
      'closed',
      'closed/',
      'closed/file',
      'closed/nope',
      'unlisted',
      'unlisted/',
    ];
    const paths = [...names, 'unlisted/index.html', 'unlisted/nope', 'to-closed', 'to-unreadable', 'unreadable.txt/x'];
    const all = sites({ root, second: root }).map(([name, ...site]) => [name, new Both(...site)] as const);
    const count = await compare(
      t,
      (function* () {
        for (const [name, both] of all) {
          for (const path of paths) {
            for (const encoded of [true, false]) {
              yield [name, both, { path, encoded, conditions: { acceptEncoding: 'gzip' } }];
            }
          }
        }
      })(),
    );
    t.true(count > 1000);
    for (const [, both] of all) both.close();
  } finally {
    restore();
    chmodSync(join(root, 'closed'), 0o755);
  }
});

test('invalid settings are refused with the same messages', (t) => {
  const root = scratch(t);
  write(join(root, 'file'), 'x');
  const good = siteSettings([root], { cache: false }, false);
  const wrong: Partial<Record<keyof SiteSettings, unknown>>[] = [
    { method: 'x' },
    { dotfiles: 'x' },
    { symlinks: '' },
    { preCompressed: ['br', 'x'] },
    { preCompressed: ['br', 'gzip', 'br'] },
    { conformance: 'x' },
    { pathRules: 'x' },
    { cacheRules: [{ pattern: '{a', value: 'x' }] },
    { cacheRules: [{ pattern: '', value: 'x' }] },
    { cacheRules: [{ pattern: '/' }] },
    { cacheRules: [{ pattern: '{a,b}'.repeat(9) }] },
    { cacheRules: [{ pattern: 'a}b' }] },
    { roots: [] },
    { roots: ['relative'] },
    { roots: [join(root, 'file')] },
    { index: ['../x'] },
    { index: [''] },
    { index: ['x/'] },
    { index: ['a"b\\'] },
    { fallback: '/x' },
    { extensions: ['a/b'] },
    { extensions: [''] },
    { extensions: ['..'] },
    // The option that is checked first.
    { method: 'x', dotfiles: 'x' },
    { conformance: 'x', cacheRules: [{ pattern: '' }], roots: [] },
    { index: ['..'], fallback: '..', extensions: ['..'], preCompressed: ['br', 'br'], roots: ['x'] },
  ];
  for (const changes of wrong) {
    const [native, portable] = settingsErrors({ ...good, ...changes } as SiteSettings);
    t.not(native, 'no error', JSON.stringify(changes));
    t.deepEqual(portable, native, JSON.stringify(changes));
  }
});

const rows = (name: string): string[][] =>
  readFileSync(new URL(name, VECTORS), 'utf8')
    .replace(/\n$/, '')
    .split('\n')
    .map((line) => line.split('\t'));

test('ranges and codings equal those of the reference packages', (t) => {
  for (const [size, header = '', expected] of rows('range.tsv')) {
    const decision = decide(header, Number(size), { maxRanges: 1000, multipart: false, conformance: 'fastify-static' });
    const ours = typeof decision === 'string' ? decision : decision.map(({ start, end }) => `${start}-${end}`).join();
    // Differs from the reference package: an empty file is sent as a whole.
    t.is(ours, size === '0' ? 'whole' : (expected as string), `${size} ${header}`);
  }
  for (const [supported = '', header = '', expected] of rows('encoding.tsv')) {
    const [choice = 'none'] = preferences(header, supported.split(',') as Encoding[], 'fastify-static');
    t.is(choice, expected as Encoding, `${supported} ${header}`);
  }
});

test('responses equal those of the reference packages', async (t) => {
  const root = scratch(t);
  plainTree(root);
  const open = (options: Options) => new Both(siteSettings([root], { cache: false, ...options }, false));
  const streamOutcome = async (both: Both, request: EngineRequest) => (await both.send(request))[1];
  for (const [method, switches = '', ...rest] of rows('send.tsv')) {
    const [etag, lastModified, acceptRanges, cacheControl, contentType] = [...switches].map((digit) => digit === '1');
    const both = open({ etag, lastModified, acceptRanges, cacheControl, contentType });
    const fields = [
      'ifMatch',
      'ifNoneMatch',
      'ifModifiedSince',
      'ifUnmodifiedSince',
      'ifRange',
      'range',
      'cacheControl',
    ];
    const given = fields.flatMap((name, at) => (rest[at] === '-' ? [] : [[name, (rest[at] as string).slice(1)]]));
    const { answer } = await streamOutcome(both, {
      path: '/a.txt',
      headOnly: method === 'HEAD',
      conditions: Object.fromEntries(given),
    });
    t.is(`${answer?.status}\t${answer?.headers.replaceAll('\n', '|')}`, rest.slice(7).join('\t'), rest.join(' '));
    both.close();
  }
  const sets: Record<string, Both> = {
    default: open({}),
    redirect: open({ redirect: true }),
    noindex: open({ index: false }),
    extensions: open({ extensions: ['txt', 'html'] }),
    deny: open({ dotfiles: 'deny' }),
    ignore: open({ dotfiles: 'ignore' }),
    compressed: open({ preCompressed: true }),
  };
  const statuses: Record<string, number> = { redirect: 301, 'not-found': 404, forbidden: 403, 'bad-path': 400 };
  for (const [set = '', path = '', accept = '', status, ...content] of rows('static.tsv')) {
    // Refused before any directory is accessed.
    if (path.includes('%00') || path.includes('x'.repeat(256))) continue;
    const request = { path, conditions: accept === '-' ? {} : { acceptEncoding: accept } };
    const { answer, body } = await streamOutcome(sets[set] as Both, request);
    const value = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(answer?.headers ?? '')?.[1] ?? '-';
    t.is(String(statuses[answer?.kind ?? ''] ?? answer?.status), status as string, `${set} ${path} ${accept}`);
    if (status !== '200') continue;
    t.deepEqual([body, value('content-type'), value('content-encoding'), value('vary')], content, `${set} ${path}`);
  }
  for (const both of Object.values(sets)) both.close();
});

/** A seeded random number generator. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let bits = Math.imul(state ^ (state >>> 15), 1 | state);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Root can read all files: switches to another user until the returned function is called. */
function dropPrivileges(): () => void {
  if (process.geteuid?.() !== 0) return () => {};
  process.seteuid?.(65_534);
  return () => process.seteuid?.(0);
}
