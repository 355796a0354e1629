// Starts a server of the comparison: `serve.ts <variant> <root>`. Prints `listening <port>` and exits when its standard input ends, so
// that it does not outlive its parent.

import { spawn } from 'node:child_process';
import { createReadStream, mkdtempSync, readdirSync, rmSync, stat, symlinkSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream';
import Fastify, { type FastifyInstance } from 'fastify';

type Register = (app: FastifyInstance, root: string) => Promise<void>;

const prefix = '/static/';

/** Fastify with a plugin or routes. */
const plugins: Record<string, Register> = {
  fastify: async () => {},
  nginx: async () => {},
  'front-door': async () => {},

  zerosend: async (app, root) => {
    const { default: zerosend } = await import('zerosend/fastify');
    await app.register(zerosend, { root, prefix });
  },

  'fastify-static': async (app, root) => {
    const { default: fastifyStatic } = await import('@fastify/static');
    await app.register(fastifyStatic, { root, prefix });
  },

  // A hand-written route without validators: every file stays in memory as a Buffer.
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

type Handler = (request: IncomingMessage, response: ServerResponse, next: () => void) => void;

/** Removes the prefix from the URL, as a router does that mounts a handler. */
function below(handler: Handler): Handler {
  return (request, response, next) => {
    request.url = (request.url ?? '').slice(prefix.length - 1);
    handler(request, response, next);
  };
}

/** Handlers for `node:http`. */
const handlers: Record<string, (root: string) => Promise<Handler>> = {
  'zerosend-handler': async (root) => {
    const { createStaticHandler } = await import('zerosend');
    return below(createStaticHandler(root) as Handler);
  },

  sirv: async (root) => {
    const { default: sirv } = await import('sirv');
    return below(sirv(root, { etag: true }));
  },

  'express-static': async (root) => {
    const { default: express } = await import('express');
    return express().use(prefix, express.static(root)) as unknown as Handler;
  },

  // As in the documentation of Node.
  'node-stream': async (root) => (request, response, next) => {
    const path = join(root, basename(request.url ?? ''));
    stat(path, (error, found) => {
      if (error !== null) return next();
      response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': found.size });
      pipeline(createReadStream(path), response, () => {});
    });
  },
};

/** Native servers. They return their port. */
const others: Record<string, (root: string) => Promise<number>> = {
  'zerosend-server': async (root) => {
    const { createFileServer } = await import('zerosend');
    const address = await createFileServer({ root, prefix, workers: 1 }).listen();
    if (!('port' in address)) throw new Error('expected a TCP address');
    return address.port;
  },

  caddy: async (root) => {
    const port = await freePort();
    const directory = mkdtempSync(join(tmpdir(), 'zerosend-bench-caddy-'));
    writeFileSync(
      join(directory, 'Caddyfile'),
      `{\n admin off\n auto_https off\n storage file_system ${directory}\n log {\n  output discard\n }\n}
http://127.0.0.1:${port} {\n handle_path ${prefix}* {\n  root * ${root}\n  file_server\n }\n}\n`,
    );
    run(directory, 'caddy', ['run', '--config', join(directory, 'Caddyfile'), '--adapter', 'caddyfile']);
    return await listening(port);
  },

  // Used only if installed: `cargo install static-web-server` takes minutes.
  'static-web-server': async (root) => {
    const port = await freePort();
    // It has no option for a prefix, so its root contains a link with that name.
    const directory = mkdtempSync(join(tmpdir(), 'zerosend-bench-sws-'));
    symlinkSync(root, join(directory, prefix.replaceAll('/', '')));
    const options = ['--host', '127.0.0.1', '--port', String(port), '--root', directory, '--threads-multiplier', '1'];
    run(directory, 'static-web-server', [...options, '--log-level', 'error', '--compression', 'false']);
    return await listening(port);
  },
};

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}

/** Starts a server that is stopped when this process exits; its directory is removed then. */
function run(directory: string, command: string, args: string[]): void {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  process.on('exit', () => {
    child.kill('SIGTERM');
    rmSync(directory, { recursive: true, force: true });
  });
}

async function listening(port: number): Promise<number> {
  for (let tries = 0; tries < 200; tries++) {
    const answer = await fetch(`http://127.0.0.1:${port}/json`).catch(() => undefined);
    if (answer !== undefined) return port;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`no server listens on port ${port}`);
}

/** Starts nginx on the same core. It serves the files and passes other requests to `upstream`. Returns its port. */
async function nginxBefore(upstream: number): Promise<number> {
  const directory = mkdtempSync(join(tmpdir(), 'zerosend-bench-nginx-'));
  const port = await freePort();
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
  run(directory, 'nginx', ['-p', directory, '-c', join(directory, 'nginx.conf')]);
  return await listening(port);
}

const [variant = '', root] = process.argv.slice(2);
const known = [plugins, handlers, others].flatMap((table) => Object.keys(table));
if (!known.includes(variant) || root === undefined) {
  console.error(`usage: serve.ts <${known.join('|')}> <root>; got "${process.argv.slice(2).join(' ')}"`);
  process.exit(2);
}
process.stdin.resume().on('end', () => process.exit());
try {
  console.log(`listening ${await serve(variant, root)}`);
} catch (error) {
  const { code, message } = error as NodeJS.ErrnoException;
  console.error(message);
  if (variant.startsWith('zerosend') && code === 'ERR_MODULE_NOT_FOUND') {
    console.error('Build zerosend in the folder above (npm install && npm run build), then run npm install here.');
  }
  process.exit(1);
}

async function serve(variant: string, root: string): Promise<number> {
  const handler = await handlers[variant]?.(root);
  if (handler !== undefined) {
    const server = createHttpServer((request, response) => {
      if (request.url === '/json')
        return void response.setHeader('content-type', 'application/json').end('{"hello":"world"}');
      handler(request, response, () => response.writeHead(404).end());
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', 4096, resolve));
    return (server.address() as AddressInfo).port;
  }
  const other = others[variant];
  if (other !== undefined) return await other(root);

  const door = variant === 'front-door' ? (await import('zerosend/fastify')).frontDoor({ root, prefix }) : undefined;
  const app = Fastify({ logger: false, ...(door === undefined ? {} : { serverFactory: door }) });
  // Blocks the JavaScript thread for `ms` milliseconds.
  app.get<{ Params: { ms: string } }>('/block/:ms', async (request) => {
    const end = performance.now() + Number(request.params.ms);
    while (performance.now() < end);
    return 'done';
  });
  app.get('/json', async () => ({ hello: 'world' }));
  await plugins[variant]!(app, root);
  await app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = app.server.address() as AddressInfo;
  return variant === 'nginx' ? await nginxBefore(port) : port;
}
