/** The ways of serving files over HTTP, one in each process: native server, front door, plugin, handler. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import fastify, { type FastifyInstance } from 'fastify';
import type { FileServer, FileServerOptions, SiteOptions } from 'zerosend';

import { control, plugin, zerosend } from './control.js';

export interface Site {
  /** Below `/<name>/`. */
  name: string;
  root: string;
  options: SiteOptions;
  /** For native servers only. */
  requestsPerConnection?: number;
}

/** `none` serves no files, to measure the delay of the machine. */
export type ServeKind = 'server' | 'door' | 'plugin' | 'handler' | 'none';

const closers: (() => Promise<unknown>)[] = [];
const portOf = (server: Server) => (server.address() as AddressInfo).port;

/** Ports by the name of the site. */
async function start({ kind, sites }: { kind: ServeKind; sites: Site[] }): Promise<Record<string, number>> {
  switch (kind) {
    case 'server':
      return Object.fromEntries(await Promise.all(sites.map(native)));
    case 'handler':
    case 'none':
      return await handlers(sites);
    case 'door': {
      const mounts = sites.map(({ name, root, options: { cache: _, ...options } }) => ({
        ...options,
        root,
        prefix: `/${name}/`,
      }));
      return await listen(
        fastify({ serverFactory: plugin.frontDoor({ mounts, cache: sites[0]?.options.cache }) }),
        sites,
      );
    }
    case 'plugin': {
      const app = fastify();
      for (const { name, root, options } of sites) {
        await app.register(plugin.default, {
          ...options,
          root,
          prefix: `/${name}/`,
          decorateReply: name === sites[0]?.name,
        });
      }
      return await listen(app, sites);
    }
  }
}

async function native({ name, root, options, requestsPerConnection }: Site): Promise<[string, number]> {
  const { conformance: _, ...rest } = options;
  const server: FileServer = zerosend.createFileServer({
    ...(rest as Omit<FileServerOptions, 'root'>),
    root,
    prefix: `/${name}/`,
    workers: 2,
    ...(requestsPerConnection === undefined ? {} : { limits: { requestsPerConnection } }),
  });
  const address = await server.listen();
  closers.push(() => server.close({ drain: 5000 }));
  if (!('port' in address)) throw new Error('no port');
  return [name, address.port];
}

async function handlers(sites: Site[]): Promise<Record<string, number>> {
  const made = sites.map(({ name, root, options }) => ({
    prefix: `/${name}`,
    handler: zerosend.createStaticHandler(root, options),
  }));
  const server = createServer((request, response) => {
    if (request.url === '/-/ping') return void response.end('pong');
    const found = made.find(({ prefix }) => request.url?.startsWith(`${prefix}/`));
    if (found === undefined) return void response.writeHead(404).end();
    request.url = request.url?.slice(found.prefix.length);
    found.handler(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closers.push(async () => {
    server.close();
    server.closeIdleConnections();
    for (const { handler } of made) handler.close();
  });
  return Object.fromEntries([...sites.map(({ name }) => name), 'none'].map((name) => [name, portOf(server)]));
}

async function listen(app: FastifyInstance, sites: Site[]): Promise<Record<string, number>> {
  app.get('/-/ping', async () => 'pong');
  await app.listen({ port: 0, host: '127.0.0.1' });
  closers.push(() => app.close());
  return Object.fromEntries(sites.map(({ name }) => [name, portOf(app.server)]));
}

control({
  start,
  end: async () => {
    await Promise.all(closers.map((close) => close()));
  },
});
