/**
 * Other platforms than Linux: processes with a faked `process.platform` import the package, serve files with Node streams, and
 * refuse everything else with `ERR_ZEROSEND_UNSUPPORTED`.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readlinkSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import test, { type ExecutionContext } from 'ava';

import { pattern, patternFile, scratch, sha256, until } from './support/files.js';
import { exchange, get, parseResponses, readExactly, readToClose } from './support/wire.js';

const PRELOAD = fileURLToPath(new URL('support/force-platform.mjs', import.meta.url));
const MAIN = fileURLToPath(new URL('../dist/lib/cli/main.js', import.meta.url));
const PLATFORMS = ['darwin', 'win32'] as const;
const MiB = 1024 * 1024;
const PAST = 1_700_000_000;

type Platform = (typeof PLATFORMS)[number] | 'linux';

const support = (name: string) => fileURLToPath(new URL(`support/${name}`, import.meta.url));

const argumentsOf = (script: string, args: string[]) => [
  `--import=${PRELOAD}`,
  ...(script.endsWith('.ts') ? ['--import=tsx'] : []),
  script,
  ...args,
];

const environment = (platform: Platform, more: NodeJS.ProcessEnv = {}) => ({
  ...process.env,
  FORCED_PLATFORM: platform,
  ...more,
});

interface Finished {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a script until it exits. */
function run(platform: Platform, script: string, args: string[] = [], more: NodeJS.ProcessEnv = {}): Promise<Finished> {
  return new Promise((resolve) => {
    const options = { env: environment(platform, more), maxBuffer: 16 * MiB };
    execFile(process.execPath, argumentsOf(script, args), options, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

interface Served {
  child: ChildProcess;
  root: string;
  /** The ports of the application and of the handler. */
  ports: [number, number];
  seen(): Promise<{ methods: string[]; files: string[] }>;
}

async function start(t: ExecutionContext, platform: Platform): Promise<Served> {
  const root = scratch(t);
  const files: Record<string, string | Buffer> = {
    'a.txt': '0123456789',
    'b.txt': 'b',
    'empty.css': '',
    'dir/index.html': '<dir>',
    'app.js': 'plain',
    'app.js.br': 'br',
    'app.js.gz': 'gzip',
    'y x#é.txt': 'odd',
    big: pattern(8 * MiB),
    // Names that Windows interprets.
    'c.txt::$DATA': 'a stream',
    'c.txt:x': 'a stream',
    'c.txt.': 'dot',
    'c.txt ': 'blank',
    'dir./c.txt': 'dot',
    'NUL.txt': 'a device',
    con: 'a device',
    'console.txt': 'no device',
  };
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(join(root, name, '..'), { recursive: true });
    writeFileSync(join(root, name), content);
    utimesSync(join(root, name), PAST, PAST);
  }
  symlinkSync('a.txt', join(root, 'link'));
  const child = spawn(process.execPath, argumentsOf(support('non-linux-app.ts'), [root]), {
    env: environment(platform),
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const [line] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  const { platform: reported, ports } = JSON.parse(line.toString());
  t.is(reported, platform);
  const seen = async () => JSON.parse((await get(ports[0], '/-/seen')).body.toString());
  return { child, root, ports, seen };
}

/** The files below a directory that a process has open. */
function openBelow(child: ChildProcess, root: string): string[] {
  const directory = `/proc/${child.pid}/fd`;
  const links = readdirSync(directory).map((fd) => {
    try {
      return readlinkSync(join(directory, fd));
    } catch {
      return '';
    }
  });
  return links.filter((link) => link.startsWith(root));
}

for (const platform of PLATFORMS) {
  test.serial(`${platform}: the plugin serves files`, async (t) => {
    const { child, root, ports, seen } = await start(t, platform);
    const [port] = ports;
    const full = await get(port, '/a.txt');
    t.like(full, {
      status: 200,
      body: Buffer.from('0123456789'),
      headers: {
        'accept-ranges': 'bytes',
        'cache-control': 'public, max-age=0',
        'content-length': '10',
        'content-type': 'text/plain; charset=utf-8',
        etag: 'W/"a-18bcfe56800"',
        'last-modified': 'Tue, 14 Nov 2023 22:13:20 GMT',
      },
    });
    const { date: _, ...headers } = full.headers;
    const head = await get(port, '/a.txt', {}, 'HEAD');
    t.like(head, { status: 200, headers, body: Buffer.alloc(0) });
    t.like(await get(port, '/a.txt', { Range: 'bytes=2-4' }), {
      status: 206,
      body: Buffer.from('234'),
      headers: { 'content-range': 'bytes 2-4/10' },
    });
    t.like(await get(port, '/a.txt', { Range: 'bytes=20-' }), {
      status: 416,
      headers: { 'content-range': 'bytes */10' },
    });
    t.is((await get(port, '/a.txt', { 'If-None-Match': full.headers.etag as string })).status, 304);
    t.is((await get(port, '/a.txt', { 'If-Match': '"x"' })).status, 412);
    t.like(await get(port, '/empty.css'), { status: 200, body: Buffer.alloc(0), headers: { 'content-length': '0' } });
    t.is(sha256((await get(port, '/big')).body), sha256(pattern(8 * MiB)));
    t.is((await get(port, '/y%20x%23%C3%A9.txt')).body.toString(), 'odd');
    t.is((await get(port, '/link')).body.toString(), '0123456789');
    t.like(await get(port, '/dir?x'), { status: 301, headers: { location: '/dir/?x' } });
    t.is((await get(port, '/dir/')).body.toString(), '<dir>');
    for (const path of ['/nope', '/a.txt/', '/dir/nope', '/-/nope']) {
      t.is((await get(port, path)).status, 404, path);
    }
    for (const path of ['/../a.txt', '/%2e%2e/a.txt', '/dir//index.html', '/dir%5cindex.html']) {
      const refused = await get(port, path);
      t.is(refused.status, 403, path);
      t.false(refused.body.includes(root), path);
    }
    t.deepEqual((await seen()).methods, [
      ...['stream', 'none', 'stream', 'none', 'none', 'stream', 'stream', 'stream', 'stream'],
    ]);
    t.deepEqual(openBelow(child, root), []);

    t.is((await get(port, '/-/send/b.txt')).body.toString(), 'b');
    t.is((await get(port, '/-/send/..%2Fx')).status, 403);
    t.is((await get(port, '/-/absolute')).body.toString(), '0123456789');
    t.like(await get(port, '/-/download'), {
      status: 200,
      body: Buffer.from('0123456789'),
      headers: { 'content-disposition': `attachment; filename="n?me.txt"; filename*=UTF-8''n%C3%A4me.txt` },
    });
    t.deepEqual(JSON.parse((await get(port, '/list/dir')).body.toString()), { dirs: [], files: ['index.html'] });
    t.like(await get(port, '/zip/app.js', { 'Accept-Encoding': 'gzip, br' }), {
      body: Buffer.from('br'),
      headers: {
        'content-encoding': 'br',
        'content-type': 'application/javascript; charset=utf-8',
        vary: 'accept-encoding',
      },
    });
    t.like(await get(port, '/zip/app.js'), { body: Buffer.from('plain'), headers: { vary: 'accept-encoding' } });
    t.is((await get(port, '/each/dir/index.html')).body.toString(), '<dir>');
    await seen();
    t.like(await get(port, '/watched/a.txt'), { status: 200, headers: { 'x-file': '/a.txt 10' } });
    t.is((await get(port, '/watched/b.txt')).status, 404);
    t.deepEqual(await seen(), { methods: ['stream'], files: ['/a.txt'] });
    t.like(JSON.parse((await get(port, '/-/inject/a.txt')).body.toString()), { statusCode: 200, body: '0123456789' });

    const statistics = JSON.parse((await get(port, '/-/stats')).body.toString());
    t.deepEqual(Object.keys(statistics.methods).sort(), ['none', 'stream']);
    t.is(statistics.cache, null);
    t.is(statistics.aborted, 0);
    t.deepEqual(openBelow(child, root), []);
  });

  test.serial(`${platform}: the handler serves files`, async (t) => {
    const { child, root, ports } = await start(t, platform);
    const port = ports[1];
    const full = await get(port, '/a.txt');
    t.like(full, { status: 200, body: Buffer.from('0123456789') });
    t.regex(full.headers.etag as string, /^"[\da-f]{32}"$/);
    t.is((await get(port, '/a.txt', { 'If-None-Match': full.headers.etag as string })).status, 304);
    t.like(await get(port, '/a.txt', {}, 'HEAD'), { status: 200, headers: { 'content-length': '10' } });
    const parts = await get(port, '/a.txt', { Range: 'bytes=0-1,8-' });
    t.is(parts.status, 206);
    t.regex(parts.body.toString(), /content-range: bytes 0-1\/10\r\n\r\n01\r\n--.*bytes 8-9\/10\r\n\r\n89\r\n--/s);
    t.is(parts.body.length, Number(parts.headers['content-length']));
    t.is(sha256((await get(port, '/big')).body), sha256(pattern(8 * MiB)));
    t.like(await get(port, '/dir'), { status: 301, headers: { location: '/dir/' } });
    t.is((await get(port, '/nope')).status, 404);
    t.is((await get(port, '/%zz')).status, 400);
    t.is((await get(port, '/a.txt', {}, 'POST')).status, 405);
    const statistics = JSON.parse((await get(port, '/-/stats')).body.toString());
    t.deepEqual(statistics, {
      responses: 5,
      bytes: 10 + Number(parts.headers['content-length']) + 8 * MiB,
      aborted: 0,
      methods: {
        stream: { responses: 3, bytes: 10 + Number(parts.headers['content-length']) + 8 * MiB },
        none: { responses: 2, bytes: 0 },
      },
      cache: null,
    });
    t.deepEqual(openBelow(child, root), []);
  });

  test.serial(`${platform}: clients half-close, pipeline, and disconnect, and files are truncated`, async (t) => {
    const { child, root, ports } = await start(t, platform);
    for (const port of ports) {
      const requests = ['/a.txt', '/big', '/nope', '/big'].map((path) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
      const responses = parseResponses(await exchange(port, requests.join(''), true));
      t.deepEqual(
        responses.map(({ status, body }) => [status, status === 200 && body.length]),
        [
          [200, 10],
          [200, 8 * MiB],
          [404, false],
          [200, 8 * MiB],
        ],
      );
      t.is(sha256(responses[3]?.body as Buffer), sha256(pattern(8 * MiB)));

      await Promise.all(
        Array.from({ length: 100 }, async (_, at) => {
          const socket = connect(port, '127.0.0.1');
          socket.on('error', () => {});
          socket.write('GET /big HTTP/1.1\r\nHost: x\r\n\r\n');
          // Some disconnect before the response, some during it.
          if (at % 4 !== 0) await readExactly(socket, at * 1000);
          else await once(socket, 'connect');
          if (at % 2 === 0) socket.destroy();
          else socket.resetAndDestroy();
        }),
      );
      await until(() => openBelow(child, root).length === 0, 5000, 'all files are closed');
      t.is((await get(port, '/a.txt')).status, 200);

      const path = patternFile(root, `shrinking-${port}`, 64 * MiB);
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => {});
      const next = 'GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n';
      socket.write(`GET /shrinking-${port} HTTP/1.1\r\nHost: x\r\n\r\n${next}`);
      await once(socket, 'readable');
      truncateSync(path, 20 * MiB);
      const { bytes: all } = await readToClose(socket);
      const body = all.subarray(all.indexOf('\r\n\r\n') + 4);
      t.true(body.length <= 20 * MiB, 'the body is incomplete, and no response follows');
      t.is(sha256(body), sha256(pattern(64 * MiB).subarray(0, body.length)), 'the bytes are those of the file');
      await until(() => openBelow(child, root).length === 0, 5000, 'the truncated file is closed');
      t.is((await get(port, '/a.txt')).status, 200);
    }
    // A body that a hook replaces is neither read nor destroyed.
    for (let at = 0; at < 20; at += 1) {
      t.is((await get(ports[0], '/-/replaced')).body.toString(), 'something else');
    }
    for (let at = 0; at < 50 && openBelow(child, root).length > 0; at += 1) await get(ports[0], '/-/collect');
    t.deepEqual(openBelow(child, root), [], 'bodies that were garbage collected are closed');

    const statistics = JSON.parse((await get(ports[1], '/-/stats')).body.toString());
    t.true(statistics.aborted >= 50, `${statistics.aborted} of 101 responses were aborted`);
  });

  test.serial(`${platform}: names that Windows interprets are refused there`, async (t) => {
    const { ports } = await start(t, platform);
    const names = ['c.txt::$DATA', 'c.txt:x', 'c.txt.', 'c.txt%20', 'dir./c.txt', 'NUL.txt', 'con', 'con/x', 'a.txt.'];
    for (const name of names) {
      const there = name !== 'con/x' && name !== 'a.txt.';
      const expected = platform === 'win32' ? 403 : there ? 200 : 404;
      for (const port of ports) t.is((await get(port, `/${name}`)).status, expected, name);
      const sent = await get(ports[0], `/-/send/${name.replace('/', '%2F')}`);
      t.is(sent.status, expected, `sendFile ${name}`);
    }
    t.is((await get(ports[1], '/console.txt')).status, 200);
  });

  test.serial(`${platform}: everything else fails with ERR_ZEROSEND_UNSUPPORTED`, async (t) => {
    const directory = scratch(t);
    writeFileSync(join(directory, 'a.txt'), '0123456789');
    const { stdout, stderr } = await run(platform, support('non-linux-exports.ts'), [directory]);
    const { outcomes, names, plugin, sockets } = JSON.parse(stdout || stderr);
    t.is(stderr, '');
    const works: Record<string, unknown> = {
      createStaticHandler: 'function',
      sliceRanges: 5,
      CachedFile: 'no constructor',
    };
    for (const [name, outcome] of Object.entries(outcomes)) {
      t.is(outcome, works[name] ?? 'ERR_ZEROSEND_UNSUPPORTED', name);
    }
    const tried = (name: string) => Object.keys(outcomes).some((one) => one === name || one.startsWith(`${name}.`));
    t.deepEqual(
      (names as string[]).filter((name) => !tried(name)),
      [],
      'exports that the script does not try',
    );
    t.deepEqual((plugin as string[]).sort(), ['default', 'errors', 'fastifyStatic', 'frontDoor', 'module.exports']);
    t.deepEqual(sockets, [true, true], 'the sockets are unchanged');
    t.deepEqual(readdirSync(directory), ['a.txt']);
  });

  test.serial(`${platform}: the command line`, async (t) => {
    const root = scratch(t);
    writeFileSync(join(root, 'a.txt'), '0123456789');
    const commands: [string[], RegExp][] = [
      [['serve', root, '--port', '0'], /Linux.*use --fastify/],
      [['proxy', '--listen', '0', '--to', '127.0.0.1:1'], /Linux/],
      [['probe'], /Linux/],
      [['cache', 'status'], /Linux/],
      [['cache', 'warm', join(root, 'a.txt')], /Linux/],
      [['cache', 'residency', root], /Linux/],
      [['bench', '--size', '1k'], /Linux/],
      [['install'], /the native binary requires Linux; on .* files are served through Node streams/],
    ];
    await Promise.all(
      commands.map(async ([args, message]) => {
        const { code, stdout, stderr } = await run(platform, MAIN, args);
        t.deepEqual({ code, stdout }, { code: 1, stdout: '' }, args.join(' '));
        t.regex(stderr, /^zerosend: [^\n]+\n$/, args.join(' '));
        t.regex(stderr, message);
      }),
    );
    t.deepEqual(readdirSync(root), ['a.txt']);
    const serve = ['serve', root, '--port', '0', '--fastify'];
    const child = spawn(process.execPath, argumentsOf(MAIN, serve), {
      env: environment(platform),
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    t.teardown(() => child.kill('SIGKILL'));
    const [line] = (await once(child.stderr as NodeJS.ReadableStream, 'data')) as [Buffer];
    const port = Number(/127\.0\.0\.1:(\d+) with Fastify, through Node streams/.exec(line.toString())?.[1]);
    t.is((await get(port, '/a.txt')).body.toString(), '0123456789');
    child.kill('SIGTERM');
    t.deepEqual(await once(child, 'exit'), [0, null]);
  });
}

test.serial('the stream engine is loaded only on other platforms than Linux', async (t) => {
  const root = scratch(t);
  const script = join(root, 'script.mjs');
  const handler = new URL('../dist/index.js', import.meta.url).href;
  writeFileSync(
    script,
    `import { createRequire } from 'node:module';
     const { createStaticHandler } = await import(${JSON.stringify(handler)});
     createStaticHandler(${JSON.stringify(root)});
     console.log(Object.keys(createRequire(import.meta.url).cache).some((name) => name.includes('mime')));`,
  );
  for (const [platform, loaded] of [
    ['linux', false],
    ['darwin', true],
    ['win32', true],
  ] as const) {
    t.deepEqual(await run(platform, script), { code: 0, stdout: `${loaded}\n`, stderr: '' }, platform);
  }
});

test.serial('invalid options are refused on all platforms, including those of the cache', async (t) => {
  const root = scratch(t);
  const script = join(root, 'script.mjs');
  const handler = new URL('../dist/index.js', import.meta.url).href;
  const wrong = [{ method: 'x' }, { dotfiles: 'x' }, { cache: 1 }, { cache: { maxFiles: 0 } }, { cache: { size: 1 } }];
  const right = [{}, { cache: true }, { cache: false }, { cache: { maxFiles: 1 } }, { method: 'splice' }];
  writeFileSync(
    script,
    `const { createStaticHandler } = await import(${JSON.stringify(handler)});
     const outcomes = ${JSON.stringify([...wrong, ...right])}.map((options) => {
       try {
         return typeof createStaticHandler(${JSON.stringify(root)}, options);
       } catch (error) {
         return [error.code, error.message];
       }
     });
     console.log(JSON.stringify(outcomes));`,
  );
  const outcomes = await Promise.all((['linux', ...PLATFORMS] as const).map((platform) => run(platform, script)));
  const [linux, ...others] = outcomes.map(({ stdout }) => JSON.parse(stdout));
  t.deepEqual(
    linux.map((outcome: unknown) => (Array.isArray(outcome) ? outcome[0] : outcome)),
    [...wrong.map(() => 'ERR_ZEROSEND_INVALID_ARGUMENT'), ...right.map(() => 'function')],
  );
  for (const other of others) t.deepEqual(other, linux);
});

test.serial('the stream engine passes the comparison with @fastify/static', async (t) => {
  t.timeout(300_000);
  const ava = fileURLToPath(new URL('../node_modules/ava/entrypoints/cli.mjs', import.meta.url));
  const { code, stdout } = await run('darwin', ava, ['--tap', '__test__/static-two-way.test.ts'], {
    NODE_OPTIONS: `--import=${PRELOAD}`,
  });
  t.is(code, 0, stdout);
  t.regex(stdout, /^# pass 1$/m);
});
