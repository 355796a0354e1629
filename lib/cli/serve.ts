/** `zerosend serve`: a directory over HTTP, by the native server or by Fastify with the plugin. */
import { lstatSync, statSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { availableParallelism } from 'node:os';
import path from 'node:path';

import { createFileServer, type FileServerOptions, type LogFormat } from '../api/file-server.js';
import { engine } from '../runtime/engine.js';
import { IS_LINUX } from '../runtime/platform.js';
import { DEFAULT_CACHE } from '../static/site-options.js';
import type { Method } from '../types/method.js';
import { onHangUp } from './signals.js';
import { integer, parse, permissions, UsageError, word } from './usage.js';

const HELP = `usage: zerosend serve [directory] [options]

  -p, --port <n>       port (default 8080; 0: any that is free)
      --host <name>    address to listen on (default 127.0.0.1; :: for all)
  -r, --root <dir>     the directory, instead of the first argument (default .)
  -m, --method <name>  auto, sendfile, splice, mmap, read-write or vmsplice (default auto)
      --workers <n>    threads (default: one for each core)
      --cache <how>    off, or for how many milliseconds files in memory count as fresh (default 0: checked each time)
      --socket <path>  listen on a Unix socket instead
      --socket-mode <octal>  permissions of its file (default: what the umask leaves)
      --list           list directories that have no index
      --spa            answer paths that name nothing with /index.html
      --cors           let pages of other origins read the files
      --max-age <age>  how long clients may keep files: milliseconds, or 1h, 30d (default 0)
      --immutable      names with a content hash never change
      --compressed     send name.br or name.gz where there is one
      --dotfiles <how> allow, deny or ignore names that begin with a dot (default ignore)
      --links <how>    follow, beneath or deny symbolic links (default beneath)
      --log <form>     write each request to the standard output: common, combined or json
      --log-file <path> write it to this file or FIFO instead (default form combined); SIGHUP opens
                       the file by its name again, after it was renamed
      --log-mode <octal> permissions of the file when it is made (default 644)
      --metrics <path> counters for Prometheus at this path
      --fastify        serve by Fastify and the plugin instead of the native server
  -h, --help

examples:
  zerosend serve ./public
  zerosend serve dist --spa --immutable --port 3000
  zerosend serve /srv/files --list --host :: --log combined
  zerosend serve -p 8080 -r ./public -m sendfile`;

const METHODS = ['auto', 'sendfile', 'splice', 'mmap', 'read-write', 'vmsplice'] as const satisfies Method[];

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
    throw new UsageError(`one directory at most, but got ${[...positionals, values.root].filter(Boolean).join(' ')}`);
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
    throw new UsageError('--socket-mode needs --socket');
  }
  await (values.fastify ? serveByFastify(options) : serveNatively(options));
}

function readLog(form?: string, file?: string, mode?: string): FileServerOptions['log'] {
  const format = word<LogFormat>('--log', form, ['common', 'combined', 'json']);
  if (file === undefined) {
    if (mode !== undefined) throw new UsageError('--log-mode needs --log-file');
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
  if (!IS_LINUX)
    throw new Error(`the native server needs Linux, and this is ${process.platform}; --fastify serves here too`);
  const server = createFileServer(options);
  const address = await server.listen().catch((error: unknown) => {
    throw explain(error, options);
  });
  // Before the line that says where: a signal may come as soon as that is read.
  onSignal(() => server.close());
  const where = 'path' in address ? address.path : address.url;
  const workers = options.workers ?? availableParallelism();
  const { connections, headTimeout, idleTimeout } = engine().defaultLimits();
  console.error(
    `serving ${options.root} at ${where}\n` +
      `method ${options.method}, ${workers} worker${workers === 1 ? '' : 's'}; at most ${connections} connections, ` +
      `${headTimeout / 1000} s for a head, ${idleTimeout / 1000} s idle`,
  );
  if (typeof options.log === 'object') onHangUp(() => server.reopen());
}

async function serveByFastify(options: FileServerOptions): Promise<void> {
  const { default: fastify } = await import('fastify').catch(() => {
    throw new Error('--fastify needs the package fastify; run "npm install fastify"');
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
    `serving ${options.root} at ${url} by Fastify, ${IS_LINUX ? `method ${method}` : 'through Node streams'}`,
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

/** Errors of listening in one line, with what to do. */
function explain(error: unknown, { path: socket, port, host }: FileServerOptions): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'EADDRINUSE' && socket !== undefined) {
    const isSocket = statSync(socket, { throwIfNoEntry: false })?.isSocket();
    return new Error(
      isSocket
        ? `another process listens on the socket '${socket}'; end it, or use another path with --socket`
        : `'${socket}' exists and is not a socket; use another path with --socket`,
    );
  }
  if (code === 'EADDRINUSE') return new Error(`port ${port} is taken; take another with --port`);
  if (code === 'EACCES') return new Error(`port ${port} is not for you; take one from 1024 up with --port`);
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return new Error(`'${host}' is no address of this machine; see --host`);
  }
  return error;
}

/** The first signal ends it in order, the second at once. */
function onSignal(close: () => Promise<unknown>): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      process.once(signal, () => process.exit(130));
      close().then(() => process.exit(0));
    });
  }
}
