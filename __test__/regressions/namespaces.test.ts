/** Behavior that depends on the network configuration, each test in a separate network namespace. */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { scratch } from '../support/files.js';

const ZEROSEND = import.meta.resolve('zerosend');
const inNamespace = (setUp: string, ...program: string[]) =>
  spawnSync('unshare', ['-n', 'sh', '-ec', `${setUp}\nexec "$@"`, 'sh', ...program], {
    encoding: 'utf8',
    timeout: 60_000,
  });

/** `test`, or `test.skip` with a warning when the namespace cannot be set up. */
function withNetwork(setUp: string): typeof test.skip {
  const { status, stderr, error } = inNamespace(setUp, 'true');
  if (status === 0) return test;
  console.warn(`skipped: a test needs a network namespace, by unshare(1) as root: ${error?.message ?? stderr.trim()}`);
  return test.skip;
}

/** Runs a program in a new namespace after `setUp`, and returns its output, parsed as JSON. */
function run(t: ExecutionContext, setUp: string, body: string) {
  const file = join(scratch(t), 'program.mjs');
  writeFileSync(file, body.replaceAll("'zerosend'", `'${ZEROSEND}'`));
  const { status, stdout, stderr } = inNamespace(setUp, process.execPath, file);
  t.is(status, 0, stderr);
  return JSON.parse(stdout);
}

const ONLY_IPV6 = 'ip link set lo up; echo 1 > /proc/sys/net/ipv6/bindv6only; ip -6 address show dev lo | grep -q ::1';

withNetwork(ONLY_IPV6)('servers on `::` accept IPv4 with net.ipv6.bindv6only=1, as in Node', (t) => {
  const found = run(
    t,
    ONLY_IPV6,
    `import { readFileSync } from 'node:fs';
    import net from 'node:net';
    import { createEchoServer, createFileServer, createProxy } from 'zerosend';
    const ask = (port, host) => new Promise((resolve) => {
      let text = '';
      net.connect(port, host, function () { this.end('GET /program.mjs HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n'); })
        .on('data', (data) => { text += data; }).on('error', (error) => resolve(error.code)).on('end', () => resolve(text.split('\\r')[0]));
    });
    const root = new URL('.', import.meta.url).pathname;
    const files = createFileServer({ root, host: '::', port: 0 });
    const { port } = await files.listen();
    const shared = createFileServer({ root, host: '::', port: 0, reusePort: true, workers: 2 });
    const { port: sharedPort } = await shared.listen();
    const proxy = await createProxy({ listen: '[::]:0', target: \`127.0.0.1:\${port}\` });
    const echo = await createEchoServer({ listen: { host: '::', port: 0 } });
    const answers = {};
    for (const [name, at] of Object.entries({ files: port, shared: sharedPort, proxy: proxy.address.port, echo: echo.address.port })) {
      answers[name] = [await ask(at, '127.0.0.1'), await ask(at, '::1')];
    }
    console.log(JSON.stringify({ setting: readFileSync('/proc/sys/net/ipv6/bindv6only', 'utf8').trim(), answers }));
    process.exit();`,
  );
  const ok = ['HTTP/1.1 200 OK', 'HTTP/1.1 200 OK'];
  const echoed = ['GET /program.mjs HTTP/1.1', 'GET /program.mjs HTTP/1.1'];
  t.deepEqual(found, { setting: '1', answers: { files: ok, shared: ok, proxy: ok, echo: echoed } });
});

const NO_LOOPBACK = 'ip -o link show dev lo | grep -qv UP';

withNetwork(NO_LOOPBACK)('probe without loopback reports connect(2) for mechanisms that it cannot test', (t) => {
  const code = (setUp: string) => {
    const { mechanisms, interfaces } = run(
      t,
      setUp,
      `import { probe } from 'zerosend';
      console.log(JSON.stringify(await probe()));`,
    );
    const up = interfaces.find(({ loopback }: { loopback: boolean }) => loopback)?.up;
    return { up, mechanisms: mechanisms as { name: string; available: boolean; syscall?: string; code?: string }[] };
  };
  const [down, up] = [code(NO_LOOPBACK), code('ip link set lo up')];
  t.deepEqual([down.up, up.up], [false, true]);
  for (const { name, available, syscall, code } of down.mechanisms) {
    const before = up.mechanisms.find((one) => one.name === name);
    if (available === before?.available) continue;
    // Mechanisms that need TCP cannot be tested.
    t.deepEqual([syscall, code], ['connect', 'ENETUNREACH'], name);
  }
  const works = (list: typeof up.mechanisms) => list.find(({ name }) => name === 'sendfile')?.available;
  t.is(typeof works(up.mechanisms), 'boolean');
  t.is(works(down.mechanisms), works(up.mechanisms));
});
