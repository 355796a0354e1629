/** `zerosend install` and the loader with a local host for the release: failures and their messages. */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect } from 'node:net';
import path from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { PROJECT_URL, VERSION } from '../lib/util/package.js';
import { scratch } from './support/files.js';
import { BINARY, consumer, type Ended, host, makeRelease, ON_HOST, quickly } from './support/release.js';
import { certificate } from './support/tls.js';

const release = makeRelease();
test.after.always(() => release.remove());

/** A program that requires the native binary. */
const USE = "const { probe } = await import('zerosend'); console.log((await probe()).pageSize);";
const WORKS = /^\d+\n$/;

/** Checks that a command has failed with a message of one line. */
function failed(t: ExecutionContext, { code, stdout, stderr }: Ended, message: RegExp, expected = 1): void {
  t.regex(stderr, message);
  const lines = stderr
    .trim()
    .split('\n')
    .filter((line) => !line.startsWith('downloading '));
  t.is(lines.length, 1, stderr);
  t.is(code, expected);
  t.is(stdout, '');
}

/** The files in the package that were not installed with it. */
function leftovers(root: string): string[] {
  return readdirSync(root).filter((name) => name.startsWith('.') || (name.endsWith('.node') && name !== BINARY));
}

test('without the binary, errors name the command that installs it', async (t) => {
  const { binary, root, run, zerosend } = consumer(t, release);
  const { url, asked } = await host(t, release);
  rmSync(binary);
  const imported = await run(
    "const { sliceRanges } = await import('zerosend'); console.log(sliceRanges(10, 2).length);",
  );
  t.deepEqual(imported, { code: 0, stdout: '2\n', stderr: '' });
  const used = await run(`try { ${USE} } catch ({ code, message }) { console.log(code, message); }`);
  t.regex(
    used.stdout,
    /^ERR_ZEROSEND_UNSUPPORTED cannot load the native binary of zerosend \S+ on linux-\w+ with (glibc|musl) [\d.]+: /,
  );
  t.true(used.stdout.endsWith(`${binary} does not exist; run "npx zerosend install"\n`), used.stdout);
  failed(t, await zerosend(['probe']), /run "npx zerosend install"$/m);

  const installed = await zerosend(['install'], { ZEROSEND_MIRROR: url });
  t.deepEqual([installed.code, installed.stdout], [0, `installed ${binary}\n`]);
  t.deepEqual(asked, [ON_HOST]);
  t.deepEqual(readFileSync(binary), readFileSync(path.join(release.directory, BINARY)));
  t.deepEqual(leftovers(root), []);
  t.regex((await run(USE)).stdout, WORKS);

  const again = await zerosend(['install', '--mirror', url]);
  t.deepEqual([again.code, again.stdout], [0, `${binary} is installed already\n`]);
  t.is(asked.length, 1, 'an installed binary is not downloaded again');
});

test('damaged, truncated and incompatible binaries, and those of other versions are refused', async (t) => {
  const { binary, root, run, zerosend } = consumer(t, release);
  const { url } = await host(t, release);
  const good = readFileSync(binary);
  const reason = async (content: Buffer) => {
    writeFileSync(binary, content);
    const { code, stderr } = await zerosend(['probe']);
    t.is(code, 1, stderr);
    t.regex(stderr, /^zerosend: cannot load the native binary of zerosend [^\n]*\n$/);
    return stderr;
  };
  t.regex(await reason(Buffer.alloc(0)), /not an ELF binary; the file may be damaged; run "npx zerosend install"/);
  t.regex(
    await reason(Buffer.from('<html>not found</html>'.repeat(100))),
    /not an ELF binary; the file may be damaged; run/,
  );
  t.regex(
    await reason(good.subarray(0, good.length >> 1)),
    /truncated to \d+ of \d+ bytes; run "npx zerosend install"/,
  );
  const other = Buffer.from(good);
  other.writeUInt16LE(process.arch === 'arm64' ? 62 : 183, 0x12);
  t.regex(await reason(other), /built for (arm64|x64); run "npx zerosend install"/);

  // The name of the C library is that of musl.
  const musl = Buffer.from(good);
  musl.write('libc.so\0\0', musl.indexOf('\0libc.so.6\0') + 1, 'latin1');
  t.regex(await reason(musl), /\.node is built for musl; run "npx zerosend install"/);

  // A version of glibc that does not exist.
  const name = /version `GLIBC_/;
  const newer = Buffer.from(good);
  const [wanted = ''] =
    good
      .toString('latin1')
      .match(/GLIBC_2\.\d\d(?=\0)/g)
      ?.sort()
      .slice(-1) ?? [];
  for (let at = newer.indexOf(wanted); at >= 0; at = newer.indexOf(wanted, at + 1)) newer.write('GLIBC_2.99', at);
  const message = await reason(newer);
  t.regex(message, /requires glibc 2\.99; run "npx zerosend install --build" to compile it/);
  t.notRegex(message, name);

  // A damaged binary is replaced.
  t.is((await zerosend(['install', '--mirror', url])).code, 0);
  t.regex((await run(USE)).stdout, WORKS);

  // The package has another version.
  const manifest = path.join(root, 'package.json');
  writeFileSync(manifest, readFileSync(manifest, 'utf8').replace(`"version": "${VERSION}"`, '"version": "99.0.0"'));
  failed(
    t,
    await zerosend(['probe']),
    /cannot load the native binary of zerosend 99\.0\.0 .* binary version \d+\.\d+\.\d+ does not match package version 99\.0\.0; run "npx zerosend install"$/m,
  );
  failed(t, await zerosend(['install', '--mirror', url]), /binary version \S+ does not match package version 99\.0\.0/);
  // The binary is loaded before it is renamed.
  rmSync(binary);
  const installed = await zerosend(['install', '--from', path.join(release.directory, BINARY)]);
  failed(
    t,
    installed,
    /binary version \S+ does not match package version 99\.0\.0; run "npx zerosend install --build"/,
  );
  t.deepEqual(
    readdirSync(root).filter((name) => name.endsWith('.node')),
    [],
  );
});

test('the error of a platform without a binary names the platform and the command', async (t) => {
  const { binary, run } = consumer(t, release);
  const preload = (code: string) => [`--import=data:text/javascript,${encodeURIComponent(code)}`];
  const reason = async (code: string) =>
    (await run(`try { ${USE} } catch ({ message }) { console.log(message); }`, {}, preload(code))).stdout;
  const arch = (name: string) => `Object.defineProperty(process, 'arch', { value: '${name}' })`;
  t.regex(
    await reason(arch('riscv64')),
    /on linux-riscv64 with .*linux-riscv64-\w+\.node does not exist.*; run "npx zerosend install --build"/,
  );
  const others = process.arch === 'arm64' ? 'x64' : 'arm64';
  const missing = await reason(arch(others));
  t.regex(
    missing,
    new RegExp(`on linux-${others} with .* does not exist \\(found ${BINARY}\\); run "npx zerosend install"`),
  );
  const musl = `
    import { createRequire } from 'node:module';
    createRequire(${JSON.stringify(binary)})('detect-libc').familySync = () => 'musl';`;
  t.regex(
    await reason(musl),
    /with musl .*-musl\.node does not exist \(found .*-gnu\.node\); run "npx zerosend install"/,
  );
});

test('--to installs elsewhere, and ZEROSEND_BINARY selects the binary', async (t) => {
  const { binary, run, zerosend } = consumer(t, release);
  const { url } = await host(t, release);
  rmSync(binary);
  const directory = path.join(scratch(t), 'a', 'b');
  const { code, stdout } = await zerosend(['install', '--mirror', url, '--to', directory]);
  const file = path.join(directory, BINARY);
  t.deepEqual([code, stdout], [0, `installed ${file}\nset ZEROSEND_BINARY=${file}\n`]);
  t.regex((await run(USE, { ZEROSEND_BINARY: file })).stdout, WORKS);
  t.regex((await run(USE)).stderr, /does not exist/);
  failed(
    t,
    await zerosend(['probe'], { ZEROSEND_BINARY: '/nowhere/x.node' }),
    /\/nowhere\/x\.node does not exist; change or unset ZEROSEND_BINARY$/m,
  );
  const fifo = path.join(directory, 'fifo.node');
  execFileSync('mkfifo', [fifo]);
  failed(t, await zerosend(['probe'], { ZEROSEND_BINARY: fifo }), /fifo\.node: .*; change or unset ZEROSEND_BINARY/);
  const script = path.join(directory, 'script.js');
  writeFileSync(script, 'console.log("run")');
  failed(
    t,
    await zerosend(['probe'], { ZEROSEND_BINARY: script }),
    /the file name must end in \.node; change or unset ZEROSEND_BINARY/,
  );
});

test('downloads with errors, wrong sizes or wrong content are not installed', async (t) => {
  const { binary, root, zerosend } = consumer(t, release);
  rmSync(binary);
  const good = readFileSync(path.join(release.directory, BINARY));
  const install = (mirror: string) => zerosend(['install', '--mirror', mirror]);
  const untouched = () =>
    t.deepEqual(
      readdirSync(root).filter((name) => name.endsWith('.node')),
      [],
    );

  const missing = await host(t, release, (_, response) => {
    response.writeHead(404).end();
    return true;
  });
  failed(
    t,
    await install(missing.url),
    /responded with 404 Not Found: the file does not exist; .*run "npx zerosend install --build"/,
  );
  t.is(missing.asked.length, 1);

  const other = Buffer.from(good);
  other[1000] = (other[1000] ?? 0) ^ 1;
  const wrong = await host(t, release, (_, response) => {
    response.end(other);
    return true;
  });
  const sum = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
  failed(
    t,
    await install(wrong.url),
    new RegExp(`expected SHA-256 ${sum(good)}, got ${sum(other)}; nothing was installed`),
  );
  untouched();

  const short = await host(t, release, (_, response) => {
    response.writeHead(200, { 'content-length': good.length });
    response.write(good.subarray(0, 100_000), () => response.destroy());
    return true;
  });
  failed(t, await install(short.url), /cannot reach \S+: \w+; try again later/);
  t.is(short.asked.length, 3, 'the download is retried');

  const long = await host(t, release, (_, response) => {
    response.on('error', () => {});
    response.write(Buffer.alloc(good.length));
    response.end('x');
    return true;
  });
  failed(t, await install(long.url), /has more than the expected \d+ bytes/);

  const forbidden = await host(t, release, (_, response) => {
    response.writeHead(403).end();
    return true;
  });
  failed(t, await install(forbidden.url), /responded with 403 Forbidden; check the mirror and the proxy/);
  const busy = await host(t, release, (_, response) => {
    response.writeHead(503).end();
    return true;
  });
  failed(t, await install(busy.url), /responded with 503 Service Unavailable; try again later/);
  t.is(busy.asked.length, 3);
  untouched();
  t.deepEqual(leftovers(root), []);

  // Two errors, then a redirect to another host, as the host of the project does.
  const store = await host(t, release, ({ headers }, response) => {
    if (headers.authorization === undefined) return false;
    response.writeHead(400).end('credentials for another host');
    return true;
  });
  const first = await host(t, release, ({ url, headers }, response, count) => {
    const status = headers.authorization === `Basic ${Buffer.from('me:s ecret').toString('base64')}` ? 302 : 401;
    response.writeHead(count < 3 ? 502 : status, { location: `${store.url}${url}` }).end();
    return true;
  });
  const { code, stdout, stderr } = await install(first.url.replace('//', '//me:s%20ecret@'));
  t.deepEqual([code, stdout], [0, `installed ${binary}\n`], stderr);
  t.false(stderr.includes('s%20ecret'));
  t.is(first.asked.length, 3);
  t.deepEqual(store.asked, [ON_HOST]);
});

test('errors of a missing network, invalid mirrors and invalid options name the remedy', async (t) => {
  const { binary, zerosend } = consumer(t, release);
  rmSync(binary);
  const closed = createServer();
  await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve));
  const { port } = closed.address() as AddressInfo;
  await new Promise((resolve) => closed.close(resolve));
  const offline =
    /cannot reach \S+: (ENOTFOUND|EAI_AGAIN|ECONNREFUSED); .*set HTTPS_PROXY or ZEROSEND_MIRROR, .*--from <file>/;
  failed(t, await zerosend(['install'], { ZEROSEND_MIRROR: `http://127.0.0.1:${port}` }), offline);
  failed(t, await zerosend(['install'], { npm_config_zerosend_mirror: 'http://mirror.invalid/zerosend/' }), offline);
  for (const mirror of ['mirror.example', 'ftp://mirror.example/', '/srv/mirror']) {
    failed(
      t,
      await zerosend(['install', '--mirror', mirror]),
      new RegExp(`invalid mirror '${mirror}': use a URL that begins with https`),
    );
  }
  failed(
    t,
    await zerosend(['install', '--mirror', 'http://me:1%@127.0.0.1/']),
    /invalid escape in the user name or password of the mirror/,
  );
  failed(t, await zerosend(['install'], { HTTPS_PROXY: 'http://%%' }), /invalid HTTPS proxy 'http:\/\/%%': use a URL/);
  failed(t, await zerosend(['install', '--build', '--from', 'x']), /--build and --from cannot be combined/, 2);
  failed(t, await zerosend(['install', '--force']), /Unknown option '--force'/, 2);
  failed(t, await zerosend(['install', 'linux']), /Unexpected argument/, 2);
});

test('--from installs a local file', async (t) => {
  const { binary, root, run, zerosend } = consumer(t, release);
  rmSync(binary);
  failed(t, await zerosend(['install', '--from', '/nowhere']), /cannot read '\/nowhere': ENOENT/);
  failed(
    t,
    await zerosend(['install', '--from', path.join(root, 'package.json')]),
    /package\.json is not .*\.node of zerosend \S+: expected SHA-256/,
  );
  t.is((await zerosend(['install', '--from', path.join(release.directory, BINARY)])).code, 0);
  t.regex((await run(USE)).stdout, WORKS);
});

test('an unreleased package and a release without a binary for this platform are reported', async (t) => {
  const { binary, root, zerosend } = consumer(t, release);
  rmSync(binary);
  const checksums = path.join(root, 'checksums.json');
  writeFileSync(checksums, JSON.stringify({ version: VERSION, files: {} }));
  failed(
    t,
    await zerosend(['install']),
    /the release of zerosend \S+ contains no binary for linux-\w+ with .*; run "npx zerosend install --build"/,
  );
  writeFileSync(checksums, '{');
  failed(t, await zerosend(['install']), /cannot read '.*checksums\.json' \(.*\); reinstall the package/);
  rmSync(checksums);
  failed(
    t,
    await zerosend(['install']),
    /this package was not released, so no binary can be downloaded; run "npx zerosend install --build"/,
  );
});

/** A proxy that opens tunnels to `target` for every requested host. */
async function proxy(t: ExecutionContext, target: number, refusal?: number) {
  const asked: { host: string | undefined; authorization: string | undefined }[] = [];
  const server = createServer();
  server.on('connect', ({ url, headers }, socket) => {
    asked.push({ host: url, authorization: headers['proxy-authorization'] });
    if (refusal !== undefined) {
      socket.end(`HTTP/1.1 ${refusal} No\r\n\r\n`);
      return;
    }
    const upstream = connect(target, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      socket.pipe(upstream).pipe(socket);
    });
    for (const one of [socket, upstream]) one.on('error', () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

test('downloads go through a proxy, with a private CA certificate', async (t) => {
  const { binary, zerosend } = consumer(t, release);
  rmSync(binary);
  const { hostname, pathname } = new URL(PROJECT_URL);
  const directory = scratch(t);
  const [key, cert] = [path.join(directory, 'key.pem'), path.join(directory, 'cert.pem')];
  const request = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', `/CN=${hostname}`];
  execFileSync('openssl', [...request, '-addext', `subjectAltName=DNS:${hostname}`, '-keyout', key, '-out', cert], {
    stdio: 'ignore',
  });
  const paths: string[] = [];
  const server = createTlsServer({ key: readFileSync(key), cert: readFileSync(cert) }, (incoming, response) => {
    paths.push(incoming.url ?? '');
    response.end(readFileSync(path.join(release.directory, BINARY)));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;

  const through = await proxy(t, port);
  const env = { HTTPS_PROXY: `http://me:secret@${through.address}`, NODE_EXTRA_CA_CERTS: cert };
  const { code, stdout, stderr } = await zerosend(['install'], env);
  t.deepEqual([code, stdout], [0, `installed ${binary}\n`], stderr);
  t.deepEqual(paths, [`${pathname}/releases/download${ON_HOST}`]);
  t.deepEqual(through.asked, [
    { host: `${hostname}:443`, authorization: `Basic ${Buffer.from('me:secret').toString('base64')}` },
  ]);

  rmSync(binary);
  for (const [status, advice] of [
    [403, /responded with 403 for [^;]*; contact its administrator/],
    [407, /responded with 407 for [^;]*; add a user name and password to its URL/],
  ] as const) {
    const refusing = await proxy(t, port, status);
    const refused = await zerosend(['install'], { ...env, HTTPS_PROXY: `http://me:secret@${refusing.address}` });
    failed(t, refused, advice);
    t.false(refused.stderr.includes('secret'));
    t.is(refusing.asked.length, 1);
  }
  failed(
    t,
    await zerosend(['install'], { HTTPS_PROXY: 'proxy.example:3128' }),
    /invalid HTTPS proxy 'proxy\.example:3128': use a URL that begins with http/,
  );
  // Configured in npm, and with hosts that bypass the proxy.
  const npm = await proxy(t, port);
  t.is(
    (await zerosend(['install'], { npm_config_https_proxy: `http://${npm.address}`, NODE_EXTRA_CA_CERTS: cert })).code,
    0,
  );
  rmSync(binary);
  const { url } = await host(t, release);
  const direct = await proxy(t, 1, 403);
  const none = { HTTP_PROXY: `http://${direct.address}`, NO_PROXY: '127.0.0.1', ZEROSEND_MIRROR: url };
  t.is((await zerosend(['install'], none)).code, 0);
  t.is(direct.asked.length, 0);
  rmSync(binary);
  failed(
    t,
    await zerosend(['install', '--mirror', url], { http_proxy: `http://${direct.address}` }),
    /responded with 403 for/,
  );
});

test('the error of an unknown certificate names NODE_EXTRA_CA_CERTS', async (t) => {
  const { binary, zerosend } = consumer(t, release);
  rmSync(binary);
  const server = createTlsServer(certificate(t), (_, response) => response.end());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  const mirror = `https://localhost:${port}`;
  failed(
    t,
    await zerosend(['install', '--mirror', mirror]),
    /cannot reach .*: DEPTH_ZERO_SELF_SIGNED_CERT; .*NODE_EXTRA_CA_CERTS/,
  );
});

const asRoot = process.getuid?.() === 0 ? test : test.skip;

asRoot('a package directory that is not writable', async (t) => {
  const uid = 65534;
  const { binary, root, run, zerosend } = consumer(t, release, uid);
  const { url } = await host(t, release);
  rmSync(binary);
  const refused = await zerosend(['install', '--mirror', url]);
  failed(
    t,
    refused,
    new RegExp(
      `'${root}' is not writable \\(EACCES\\); run this command as its owner, or run "npx zerosend install --to <directory>"`,
    ),
  );
  const own = scratch(t);
  chmodSync(own, 0o777);
  t.is((await zerosend(['install', '--mirror', url, '--to', own])).code, 0);
  t.regex((await run(USE, { ZEROSEND_BINARY: path.join(own, BINARY) })).stdout, WORKS);
});

asRoot('a full disk is reported, and leaves no file', async (t) => {
  const { zerosend } = consumer(t, release);
  const { url } = await host(t, release);
  const small = path.join(scratch(t), 'small');
  mkdirSync(small);
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', small]).status !== 0) {
    t.log('skipped: cannot mount a tmpfs');
    t.pass();
    return;
  }
  t.teardown(() => execFileSync('umount', [small]));
  failed(
    t,
    await zerosend(['install', '--mirror', url, '--to', small]),
    /no space for the binary in '.*small' \(ENOSPC\)/,
  );
  t.deepEqual(readdirSync(small), []);
});

test('concurrent installations succeed', async (t) => {
  const { binary, root, run, zerosend } = consumer(t, release);
  const { url } = await host(t, release);
  truncateSync(binary, 1000);
  const all = await Promise.all(Array.from({ length: 4 }, () => zerosend(['install', '--mirror', url])));
  t.deepEqual(
    all.map(({ code }) => code),
    [0, 0, 0, 0],
    all.map(({ stderr }) => stderr).join(''),
  );
  t.deepEqual(leftovers(root), []);
  t.regex((await run(USE)).stdout, WORKS);
});

test('--build needs a current cargo, and compiles the binary', async (t) => {
  t.timeout(600_000);
  const { binary, root, run, zerosend } = consumer(t, release);
  rmSync(binary);
  const bin = scratch(t);
  failed(t, await zerosend(['install', '--build'], { PATH: bin }), /compiling requires cargo \(Rust 1\.88 or newer\)/);
  const cargo = path.join(bin, 'cargo');
  const fakeCargo = (script: string) => {
    writeFileSync(cargo, `#!/bin/sh\n${script}\n`);
    chmodSync(cargo, 0o755);
  };
  const PATH = `${bin}:${process.env.PATH}`;
  fakeCargo('echo "cargo 1.70.0 (7fe40dc8c 2023-04-27)"');
  failed(
    t,
    await zerosend(['install', '--build'], { PATH }),
    /requires Rust 1\.88 or newer, found cargo 1\.70\.0 .*; run "rustup update stable"/,
  );
  fakeCargo('[ "$1" = --version ] && echo "cargo 1.99.0" && exit; exit 101');
  failed(t, await zerosend(['install', '--build'], { PATH }), /cargo failed; see its messages above/);
  t.deepEqual(
    readdirSync(root).filter((name) => name.endsWith('.node')),
    [],
  );

  const { CARGO_HOME, RUSTUP_HOME } = process.env;
  const { code, stdout, stderr } = await zerosend(['install', '--build'], {
    ...quickly('test-install'),
    CARGO_HOME,
    RUSTUP_HOME,
  });
  t.deepEqual([code, stdout], [0, `installed ${binary}\n`], stderr);
  t.notDeepEqual(readFileSync(binary), readFileSync(path.join(release.directory, BINARY)));
  t.regex((await run(USE)).stdout, WORKS);
  t.deepEqual(
    readdirSync(root).filter((name) => name === 'target'),
    [],
  );
});

test('a new project without cargo serves a file with sendfile', async (t) => {
  const bin = scratch(t);
  const npm = execFileSync('sh', ['-c', 'readlink -f "$(command -v npm)"'], { encoding: 'utf8' }).trim();
  for (const [name, program] of [
    ['node', process.execPath],
    ['npm', npm],
  ] as const) {
    writeFileSync(
      path.join(bin, name),
      `#!/bin/sh\nexec ${name === 'npm' ? `${process.execPath} ` : ''}${program} "$@"\n`,
    );
    chmodSync(path.join(bin, name), 0o755);
  }
  for (const tool of ['sh', 'env']) copyFileSync(`/usr/bin/${tool}`, path.join(bin, tool));
  t.not(spawnSync('cargo', ['--version'], { env: { PATH: bin } }).status, 0);
  const output = execFileSync(process.execPath, ['scripts/release/smoke.mjs', release.tarball], {
    encoding: 'utf8',
    env: { PATH: bin, HOME: process.env.HOME },
  });
  t.regex(output, /: 4 MiB by sendfile$/m);
});
