/** `zerosend serve`: serves a directory over HTTP, with the native server or with Fastify and the plugin. */
import { lstatSync, statSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { availableParallelism } from 'node:os';
import path from 'node:path';

import { createFileServer, type FileServerOptions, type LogFormat } from '../api/file-server.js';
import { engine } from '../runtime/engine.js';
import { IS_LINUX } from '../runtime/platform.js';
import { DEFAULT_CACHE } from '../static/site-options.js';
import { METHODS } from '../types/method.js';
import { onHangUp } from './signals.js';
import { integer, parse, permissions, UsageError, word } from './usage.js';

const HELP = `usage: zerosend serve [directory] [options]

  -p, --port <n>             port to listen on (default 8080; 0: any free port)
      --host <name>          address to listen on (default 127.0.0.1; use :: for all addresses)
      --socket <path>        listen on a Unix socket instead
      --socket-mode <octal>  permissions of the Unix socket (default: set by the umask)
  -r, --root <dir>           directory to serve, instead of the argument (default .)
  -m, --method <name>        auto, sendfile, splice, mmap, read-write or vmsplice
                             (default auto)
      --workers <n>          number of threads (default: one per core)
      --cache <ms>           milliseconds for which cached files are served without
                             checking the disk (default 0: always check), or off
      --list                 list directories without an index file
      --spa                  serve /index.html for paths that name no file
      --cors                 allow pages of other origins to read the files
      --max-age <age>        Cache-Control: max-age in milliseconds, or 1h, 30d (default 0)
      --immutable            mark files with a content hash in their name as immutable
      --compressed           serve precompressed files (name.br, name.gz)
      --dotfiles <policy>    allow, deny or ignore names that begin with a dot
                             (default ignore)
      --links <policy>       symbolic links: follow all, only those that stay beneath the
                             directory, or deny (default beneath)
      --log <format>         log requests to standard output: common, combined or json
      --log-file <path>      log to this file or FIFO instead (default format combined);
                             reopened on SIGHUP, for log rotation
      --log-mode <octal>     permissions of a new log file (default 644)
      --metrics <path>       serve metrics for Prometheus at this path
      --fastify              use Fastify with the plugin instead of the native server
  -h, --help                 print this help

examples:
  zerosend serve ./public
  zerosend serve dist --spa --immutable --port 3000
  zerosend serve /srv/files --list --host :: --log combined
  zerosend serve -p 8080 -r ./public -m sendfile`;

export async function serve(args: string[]): Promise<void> {
  const { values, positionals } = parse({
    args,
    allowPositionals: true,
    options: {
      port: { type: 'string', short: 'p' },
      host: { type: 'string' },
      root: { type: 'string', short: 'r' },
      method: { type: 'string', short: 'm' },
      workers: { type: 'string' },
      cache: { type: 'string' },
      socket: { type: 'string' },
      'socket-mode': { type: 'string' },
      list: { type: 'boolean' },
      spa: { type: 'boolean' },
      cors: { type: 'boolean' },
      'max-age': { type: 'string' },
      immutable: { type: 'boolean' },
      compressed: { type: 'boolean' },
      dotfiles: { type: 'string' },
      links: { type: 'string' },
      log: { type: 'string' },
      'log-file': { type: 'string' },
      'log-mode': { type: 'string' },
      metrics: { type: 'string' },
      fastify: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  if (positionals.length + (values.root === undefined ? 0 : 1) > 1) {
    throw new UsageError(`too many directories: ${[...positionals, values.root].filter(Boolean).join(' ')}`);
  }
  const root = path.resolve(values.root ?? positionals[0] ?? '.');
  if (!statSync(root, { throwIfNoEntry: false })?.isDirectory()) throw new Error(`'${root}' is not a directory`);
  const maxAge = values['max-age'];
  if (maxAge !== undefined && !/^\d+(\.\d+)?\s*(ms|s|m|h|d|w|y)?$/.test(maxAge)) {
    throw new UsageError(`invalid --max-age '${maxAge}': use milliseconds, or a number with ms, s, m, h, d, w or y`);
  }
  const options: FileServerOptions = {
    root,
    host: values.host ?? '127.0.0.1',
    port: integer('--port', values.port, 0, 65_535) ?? 8080,
    path: values.socket,
    socketMode: permissions('--socket-mode', values['socket-mode']),
    workers: integer('--workers', values.workers, 1, 1024),
    method: word('--method', values.method, METHODS) ?? 'auto',
    cache: readCache(values.cache),
    list: values.list ?? false,
    fallback: values.spa ? 'index.html' : undefined,
    cors: values.cors ?? false,
    maxAge: maxAge !== undefined && /^\d+$/.test(maxAge) ? Number(maxAge) : maxAge,
    immutable: values.immutable ? 'hashed' : false,
    preCompressed: values.compressed ?? false,
    dotfiles: word('--dotfiles', values.dotfiles, ['allow', 'deny', 'ignore']) ?? 'ignore',
    symlinks: word('--links', values.links, ['follow', 'beneath', 'deny']) ?? 'beneath',
    log: readLog(values.log, values['log-file'], values['log-mode']),
    metrics: values.metrics ?? false,
  };
  if (values['socket-mode'] !== undefined && values.socket === undefined) {
    throw new UsageError('--socket-mode requires --socket');
  }
  await (values.fastify ? serveWithFastify(options) : serveNatively(options));
}

function readLog(name?: string, file?: string, mode?: string): FileServerOptions['log'] {
  const format = word<LogFormat>('--log', name, ['common', 'combined', 'json']);
  if (file === undefined) {
    if (mode !== undefined) throw new UsageError('--log-mode requires --log-file');
    return format ?? false;
  }
  return { format: format ?? 'combined', path: file, mode: permissions('--log-mode', mode) };
}

function readCache(value: string | undefined): FileServerOptions['cache'] {
  if (value === 'off') return false;
  const revalidate = integer('--cache', value, 0, 86_400_000);
  return revalidate ? { ...DEFAULT_CACHE, revalidate } : undefined;
}

async function serveNatively(options: FileServerOptions): Promise<void> {
  if (!IS_LINUX) throw new Error(`the native server requires Linux, not ${process.platform}; use --fastify`);
  const server = createFileServer(options);
  const address = await server.listen().catch((error: unknown) => {
    throw explain(error, options);
  });
  // Before the line is printed: a program may send a signal as soon as it has read it.
  onSignal(() => server.close());
  const url = 'path' in address ? address.path : address.url;
  const workers = options.workers ?? availableParallelism();
  const { connections, headTimeout, idleTimeout } = engine().defaultLimits();
  console.error(
    `serving ${options.root} at ${url}\n` +
      `method ${options.method}, ${workers} worker${workers === 1 ? '' : 's'}; limits: ${connections} connections, ` +
      `${headTimeout / 1000} s for a request head, ${idleTimeout / 1000} s idle`,
  );
  if (typeof options.log === 'object') onHangUp(() => server.reopen());
}

async function serveWithFastify(options: FileServerOptions): Promise<void> {
  const { default: fastify } = await import('fastify').catch(() => {
    throw new Error('--fastify requires the package fastify; run "npm install fastify"');
  });
  const { default: fastifyStatic } = await import('../fastify.js');
  for (const flag of ['list', 'metrics', 'cors'] as const) {
    if (options[flag]) throw new UsageError(`--${flag} cannot be used with --fastify`);
  }
  if (typeof options.log === 'object') throw new UsageError('--log-file cannot be used with --fastify');
  if (options.socketMode !== undefined) throw new UsageError('--socket-mode cannot be used with --fastify');
  const app = fastify({ logger: Boolean(options.log) });
  const { method, cache, maxAge, immutable, preCompressed, dotfiles, symlinks, fallback } = options;
  await app.register(fastifyStatic, {
    root: options.root as string,
    redirect: true,
    method,
    cache,
    maxAge,
    immutable,
    preCompressed,
    dotfiles,
    symlinks,
    fallback,
  });
  const where =
    options.path === undefined
      ? { port: options.port ?? 0, host: options.host ?? '127.0.0.1' }
      : { path: options.path };
  if (options.path !== undefined) await removeStaleSocket(options.path);
  const url = await app.listen(where).catch((error: unknown) => {
    throw explain(error, options);
  });
  onSignal(() => app.close());
  console.error(
    `serving ${options.root} at ${url} with Fastify, ${IS_LINUX ? `method ${method}` : 'through Node streams'}`,
  );
}

/** Removes a socket that no process listens on, as the native server does. */
async function removeStaleSocket(socket: string): Promise<void> {
  if (!lstatSync(socket, { throwIfNoEntry: false })?.isSocket()) return;
  const isStale = await new Promise<boolean>((resolve) => {
    const probe = connect(socket, () => resolve(false));
    probe.once('error', ({ code }: NodeJS.ErrnoException) => resolve(code === 'ECONNREFUSED'));
    probe.once('connect', () => probe.destroy());
  });
  if (isStale) unlinkSync(socket);
}

/** Describes an error of listen() in one line. */
function explain(error: unknown, { path: socket, port, host }: FileServerOptions): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'EADDRINUSE' && socket !== undefined) {
    const isSocket = statSync(socket, { throwIfNoEntry: false })?.isSocket();
    return new Error(
      isSocket
        ? `socket '${socket}' is in use by another process; choose another path with --socket`
        : `'${socket}' exists and is not a socket; choose another path with --socket`,
    );
  }
  if (code === 'EADDRINUSE') return new Error(`port ${port} is in use; choose another with --port`);
  if (code === 'EACCES')
    return new Error(`permission denied for port ${port}: ports below 1024 require root or CAP_NET_BIND_SERVICE`);
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return new Error(`cannot listen on '${host}': not an address of this machine; choose another with --host`);
  }
  return error;
}

/** Closes at the first SIGINT or SIGTERM, and exits at the second. */
function onSignal(close: () => Promise<unknown>): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      process.once(signal, () => process.exit(130));
      close().then(() => process.exit(0));
    });
  }
}
