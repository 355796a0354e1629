/** The published package: its content, and projects of various kinds that install it and run the programs of the README. */
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';

import test, { type ExecutionContext } from 'ava';

import { PACKAGE_ROOT, VERSION } from '../lib/util/package.js';
import { inspect } from '../scripts/release/inspect.js';
import { pattern, scratch } from './support/files.js';
import { BINARY, install, makeRelease } from './support/release.js';

const release = makeRelease();
test.after.always(() => release.remove());

const run = promisify(execFile);
const tool = (name: string) => path.join(PACKAGE_ROOT, 'node_modules/.bin', name);

test('the package contains the required files only', (t) => {
  const allowed = [
    /^(package\.json|checksums\.json|README\.md|README\.zh-CN\.md|LICENSE|native\.d\.ts)$/,
    /^zerosend\.linux-(x64|arm64)-(gnu|musl)\.node$/,
    /^dist\/(index|lib\/[\w/-]+)\.(js|d\.ts)$/,
    // The sources of the binary. The manifest lists the benches, which therefore must exist.
    /^Cargo\.(toml|lock)$/,
    // All members of the workspace must exist, also faultfs, which only tests use.
    /^crates\/(http|sys|core|tools|node|faultfs)\/Cargo\.toml$/,
    /^crates\/(http|sys|core|tools|node|faultfs)\/src\/[\w/-]+\.rs$/,
    /^crates\/core\/benches\/\w+\.rs$/,
    /^crates\/node\/build\.rs$/,
  ];
  t.deepEqual(
    release.contents.filter((file) => !allowed.some((pattern) => pattern.test(file))),
    [],
  );
  for (const file of ['dist/index.js', 'dist/lib/cli/main.js', 'checksums.json', 'crates/node/src/lib.rs', BINARY]) {
    t.true(release.contents.includes(file), file);
  }
  const { size } = inspect(path.join(release.directory, BINARY));
  // See docs/install.md.
  t.true(size < 2_700_000, `the binary has ${size} bytes`);
  t.true(release.unpackedSize - size < 2_200_000, `the rest has ${release.unpackedSize - size} bytes`);
});

test('the package has no install scripts', (t) => {
  const { scripts } = JSON.parse(
    readFileSync(path.join(release.project, 'node_modules/zerosend/package.json'), 'utf8'),
  );
  for (const name of ['preinstall', 'install', 'postinstall']) t.false(name in scripts, name);
});

test('publint reports no problems', async (t) => {
  const { stdout } = await run(tool('publint'), ['run', '--strict', release.tarball]);
  t.regex(stdout, /All good!/);
});

test('attw reports no problems', async (t) => {
  const output = await run(tool('attw'), [release.tarball, '--format', 'json']).catch(
    (error: { stdout: string }) => error,
  );
  const { problems } = (
    JSON.parse(output.stdout) as {
      analysis: { problems: { kind: string; resolutionKind?: string; resolutionOption?: string }[] };
    }
  ).analysis;
  // `moduleResolution: node10`, which does not support "exports" and was removed in TypeScript 7; and require() of an ES module, which
  // Node 20.19 supports.
  const known = problems.filter(
    ({ kind, resolutionKind, resolutionOption }) =>
      resolutionKind === 'node10' || resolutionOption === 'node10' || kind === 'CJSResolvesToESM',
  );
  t.deepEqual(
    problems.filter((one) => !known.includes(one)),
    [],
  );
});

test('the checksums and the bill of materials of a release are correct', (t) => {
  const sums = execFileSync('sha256sum', ['--check', '--strict', 'SHA256SUMS'], {
    cwd: release.directory,
    encoding: 'utf8',
  });
  t.is(sums, `zerosend-${VERSION}.cdx.json: OK\nzerosend-${VERSION}.tgz: OK\n${BINARY}: OK\n`);
  const bill = JSON.parse(readFileSync(path.join(release.directory, `zerosend-${VERSION}.cdx.json`), 'utf8'));
  const purls = bill.components.map(({ purl }: { purl: string }) => purl);
  const names = purls.map((purl: string) => purl.replace(/@[^@]*$/, ''));
  for (const name of [
    'pkg:cargo/nix',
    'pkg:cargo/napi',
    'pkg:npm/undici',
    'pkg:npm/%40fastify/error',
    'pkg:npm/minimatch',
  ]) {
    t.true(names.includes(name), name);
  }
  for (const name of ['pkg:cargo/criterion', 'pkg:cargo/zerosend-core', 'pkg:npm/ava', 'pkg:npm/tsx'])
    t.false(names.includes(name), name);
  t.is(new Set(purls).size, purls.length);
  t.true(bill.components.every(({ licenses }: { licenses?: unknown[] }) => licenses?.length === 1));
});

/** A project with the package and the other packages that the README uses. */
function project(t: ExecutionContext): string {
  const directory = scratch(t);
  install(directory, release);
  mkdirSync(path.join(directory, 'node_modules/@types'), { recursive: true });
  for (const name of ['fastify', '@types/node']) {
    symlinkSync(path.join(PACKAGE_ROOT, 'node_modules', name), path.join(directory, 'node_modules', name));
  }
  return directory;
}

const SNIPPETS = [
  ...readFileSync(path.join(PACKAGE_ROOT, 'README.md'), 'utf8').matchAll(/^```ts\n([\s\S]*?)^```/gm),
].map(([, code = '']) => code);

/** Declarations of names that the programs of the README use without importing them. */
const GLOBALS = `
import type { FileHandle } from 'node:fs/promises';
import type { Socket } from 'node:net';
import type { fastify as Fastify } from 'fastify';
declare global {
  const socket: Socket;
  const otherSocket: Socket;
  const sockets: Socket[];
  const file: FileHandle;
  const fastify: typeof Fastify;
}`;

for (const [module, moduleResolution] of [
  ['nodenext', 'nodenext'],
  ['esnext', 'bundler'],
] as const) {
  for (const type of module === 'nodenext' ? (['module', 'commonjs'] as const) : (['module'] as const)) {
    test(`the programs of the README compile: moduleResolution ${moduleResolution}, "type": "${type}"`, async (t) => {
      const directory = project(t);
      const compilerOptions = {
        module,
        moduleResolution,
        target: 'es2022',
        strict: true,
        noEmit: true,
        types: ['node'],
        // Also checks the declarations of the package.
        skipLibCheck: false,
      };
      writeFileSync(path.join(directory, 'package.json'), JSON.stringify({ type }));
      writeFileSync(
        path.join(directory, 'tsconfig.json'),
        JSON.stringify({ compilerOptions, include: ['*.ts', '*.mts'] }),
      );
      writeFileSync(path.join(directory, 'globals.d.mts'), GLOBALS);
      // CommonJS does not support top-level await.
      const wrapped = (code: string) => {
        const imports = code.match(/^import .*$/gm)?.join('\n') ?? '';
        return `${imports}\nexport async function main() {\n${code.replace(/^import .*$/gm, '')}\n}\n`;
      };
      SNIPPETS.forEach((code, at) => {
        writeFileSync(path.join(directory, `snippet-${at}.ts`), type === 'commonjs' ? wrapped(code) : code);
      });
      const wrong =
        "import { sendFile } from 'zerosend';\n// @ts-expect-error: unknown method\nvoid sendFile(1, 'x', { method: 'fax' });\n";
      writeFileSync(path.join(directory, 'wrong.ts'), wrong);
      const result = await run(tool('tsc'), ['-p', directory]).catch((error: { stdout: string }) => error);
      t.is(result.stdout, '');
    });
  }
}

test('CommonJS modules can require the package', async (t) => {
  const directory = project(t);
  writeFileSync(path.join(directory, 'file.txt'), 'hello');
  const program = `
    const { MappedFile, sliceRanges } = require('zerosend');
    const app = require('fastify')();
    app.register(require('zerosend/fastify'), { root: __dirname });
    app.listen({ port: 0, host: '127.0.0.1' })
      .then((url) => fetch(url + '/file.txt'))
      .then((response) => response.text())
      .then((text) => { console.log(text, typeof MappedFile, sliceRanges(4, 2).length, require('zerosend/package.json').name); return app.close(); });`;
  writeFileSync(path.join(directory, 'main.cjs'), program);
  const { stdout } = await run(process.execPath, [path.join(directory, 'main.cjs')]);
  t.is(stdout, 'hello function 2 zerosend\n');
});

/** A free port. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Runs a program of the README in a separate project, followed by `after`. Returns the output. */
async function follow(t: ExecutionContext, begin: RegExp, after: string, before = ''): Promise<string> {
  const found = SNIPPETS.filter((code) => begin.test(code));
  t.is(found.length, 1, `one program of the README matches ${begin}`);
  const directory = project(t);
  for (const name of ['public', 'www', 'app', 'app/public']) mkdirSync(path.join(directory, name), { recursive: true });
  for (const name of ['a.bin', 'b.bin', 'video.mp4', 'www/index.html', 'public/index.html', 'app/public/index.html']) {
    writeFileSync(path.join(directory, name), pattern(300_000));
  }
  const port = await freePort();
  const code = (found[0] as string)
    .replaceAll('/srv/', `${directory}/`)
    .replace(/\b(3000|8080|9000)\b/, String(port))
    .replaceAll("'jobs'", `'jobs-${process.pid}'`);
  // Sockets whose peers read everything, and write on request.
  const prelude = `
    import { once } from 'node:events';
    import { open } from 'node:fs/promises';
    import { connect, createServer } from 'node:net';
    const received = [];
    const peers = [];
    const sink = createServer((peer) => {
      const pieces = [];
      peers.push(peer);
      received.push(pieces);
      peer.on('data', (piece) => pieces.push(piece));
    }).listen(0, '127.0.0.1');
    await once(sink, 'listening');
    const open1 = async () => {
      const socket = connect(sink.address().port, '127.0.0.1');
      await once(socket, 'connect');
      return socket;
    };
    globalThis.socket = await open1();
    globalThis.otherSocket = await open1();
    globalThis.sockets = [await open1(), await open1()];
    globalThis.fastify = (await import('fastify')).default;
    globalThis.file = await open('a.bin');
    globalThis.total = (at) => received[at].reduce((sum, piece) => sum + piece.length, 0);
    globalThis.peers = peers;
    globalThis.until = async (condition) => { while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5)); };
    await until(() => peers.length === 4);
    ${before}
  `;
  writeFileSync(path.join(directory, 'prelude.mjs'), prelude);
  writeFileSync(path.join(directory, 'main.mjs'), `${code}\n${after}\nprocess.exit(0);\n`);
  const args = ['--import', './prelude.mjs', 'main.mjs'];
  const { stdout } = await run(process.execPath, args, {
    cwd: directory,
    timeout: 30_000,
    env: { ...process.env, PORT: String(port) },
  });
  return stdout;
}

const FETCH =
  "console.log((await (await fetch('http://127.0.0.1:' + process.env.PORT + PATH)).arrayBuffer()).byteLength);";

test('README: the Fastify plugin', async (t) => {
  t.is(await follow(t, /prefix: '\/static\/', maxAge/, FETCH.replace('PATH', "'/static/index.html'")), '300000\n');
});

test('README: the front door', async (t) => {
  const after = `await app.listen({ port: Number(process.env.PORT) }); ${FETCH.replace('PATH', "'/static/index.html'")}`;
  t.is(await follow(t, /serverFactory/, after), '300000\n');
});

test('README: sendFile to a socket', async (t) => {
  const after = `
    const { connect: join } = await import('node:net');
    const answer = [];
    for await (const piece of join(Number(process.env.PORT), '127.0.0.1')) answer.push(piece);
    console.log(Buffer.concat(answer).length);`;
  t.regex(
    await follow(t, /createServer\(async \(socket\)/, after),
    /^298976 bytes by [\w-]+\n298976\n$|^298976\n298976 bytes by [\w-]+\n$/,
  );
});

test('README: sendFiles, slices, receiveFile and sendPages', async (t) => {
  const sent = 4 + 300_000 + 50 + (1 << 20);
  const after = `
    await until(() => total(0) === ${sent});
    console.log(total(2) + total(3));
    const { statSync } = await import('node:fs');
    console.log(statSync('upload.bin').size);`;
  t.is(await follow(t, /sendFiles\(socket/, after, 'peers[0].write(Buffer.alloc(1_000_000));'), '300000\n1000000\n');
});

test('README: a standalone server', async (t) => {
  t.is(await follow(t, /createFileServer\(/, FETCH.replace('PATH', "'/index.html'")), '300000\n');
});

test('README: caching', async (t) => {
  t.is(
    await follow(t, /new FileCache\(/, 'await until(() => total(0) === 300_000); console.log(cache.stats().files);'),
    '1\n',
  );
});

test('README: proxying', async (t) => {
  t.is(await follow(t, /createProxy\(/, 'console.log(typeof proxy.close);'), 'function\n');
});

test('README: shared memory', async (t) => {
  // The reader waits for another message after the first one.
  const log = 'const { log } = console; console.log = (text) => { log(text); process.exit(0); };';
  t.is(await follow(t, /SharedRing\.create/, '', log), 'hello\n');
});

test('README: pipes and tee', async (t) => {
  t.is(
    await follow(
      t,
      /tee\(pipe, copy/,
      'await until(() => total(0) === 65536 && total(1) === 65536); console.log("both");',
    ),
    'both\n',
  );
});
