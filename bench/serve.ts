// One server of the comparison: `serve.ts <variant> <root>`. Prints `listening <port>` and serves until its standard
// input ends, so that no server outlives the comparison that started it.

import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Fastify, { type FastifyInstance } from 'fastify';

type Register = (app: FastifyInstance, root: string) => Promise<void>;

const prefix = '/static/';

const variants: Record<string, Register> = {
  native: async () => {},
  'front-door': async () => {},
  fastify: async () => {},
  nginx: async () => {},

  zerosend: async (app, root) => {
    const { default: zerosend } = await import('zerosend/fastify');
    await app.register(zerosend, { root, prefix });
  },

  'fastify-static': async (app, root) => {
    const { default: fastifyStatic } = await import('@fastify/static');
    await app.register(fastifyStatic, { root, prefix });
  },

  // What an application can do by hand: no file system, no validators, one Buffer per file for ever.
  'send-buffer': async (app, root) => {
    const bodies = new Map<string, Buffer | undefined>(readdirSync(root).map((name) => [name, undefined]));
    app.get<{ Params: { '*': string } }>(`${prefix}*`, async (request, reply) => {
      const name = request.params['*'];
      if (!bodies.has(name)) return reply.code(404).send();
      const body = bodies.get(name) ?? (await readFile(join(root, name)));
      bodies.set(name, body);
      return reply.header('content-type', 'application/octet-stream').header('content-length', body.length).send(body);
    });
  },
};

/** nginx on the same core: the files by itself, the rest to `port`. Gives its own port. */
async function nginxBefore(upstream: number): Promise<number> {
  const directory = mkdtempSync(join(tmpdir(), 'zerosend-bench-nginx-'));
  const port = await new Promise<number>((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
  writeFileSync(
    join(directory, 'nginx.conf'),
    `${process.getuid?.() === 0 ? 'user root;' : ''} daemon off; worker_processes 1; pid ${directory}/pid; error_log stderr;
    events { worker_connections 4096; }
    http {
      access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
      open_file_cache max=1000; open_file_cache_valid 30s;
      upstream app { server 127.0.0.1:${upstream}; keepalive 64; }
      server {
        listen 127.0.0.1:${port} backlog=4096;
        location ${prefix} { alias ${root}/; }
        location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }
      }
    }`,
  );
  const nginx = spawn('nginx', ['-p', directory, '-c', join(directory, 'nginx.conf')], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  process.on('exit', () => {
    nginx.kill('SIGTERM');
    rmSync(directory, { recursive: true, force: true });
  });
  for (let tries = 0; tries < 100; tries++) {
    const answer = await fetch(`http://127.0.0.1:${port}/json`).catch(() => undefined);
    if (answer?.ok === true) return port;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error('nginx did not start');
}

const [variant, root] = process.argv.slice(2);
const register = variants[variant ?? ''];
if (register === undefined || root === undefined) {
  console.error(
    `usage: serve.ts <${Object.keys(variants).join('|')}> <root>; got "${process.argv.slice(2).join(' ')}"`,
  );
  process.exit(2);
}

// Servers with more to them than a plugin.
if (variant === 'native') {
  const { createFileServer } = await import('zerosend');
  const address = await createFileServer({ root, prefix, workers: 1 }).listen();
  if ('port' in address) console.log(`listening ${address.port}`);
  process.stdin.resume().on('end', () => process.exit());
  await new Promise(() => {});
}
const doorFactory =
  variant === 'front-door' ? (await import('zerosend/fastify')).frontDoor({ root, prefix }) : undefined;

const app = Fastify({ logger: false, ...(doorFactory === undefined ? {} : { serverFactory: doorFactory }) });
// Keeps the JavaScript thread from everything else for as many milliseconds.
app.get<{ Params: { ms: string } }>('/block/:ms', async (request) => {
  const end = performance.now() + Number(request.params.ms);
  while (performance.now() < end);
  return 'done';
});
app.get('/json', async () => ({ hello: 'world' }));
try {
  await register(app, root);
  await app.listen({ host: '127.0.0.1', port: 0 });
} catch (error) {
  const { code, message } = error as NodeJS.ErrnoException;
  console.error(message);
  if (variant === 'zerosend' && code === 'ERR_MODULE_NOT_FOUND') {
    console.error('Build zerosend in the folder above (npm install && npm run build), then run npm install here.');
  }
  process.exit(1);
}
const { port } = app.server.address() as AddressInfo;
console.log(`listening ${variant === 'nginx' ? await nginxBefore(port) : port}`);

process.stdin.resume().on('end', () => process.exit());
