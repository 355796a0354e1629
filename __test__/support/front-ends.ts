/** All ways of serving a directory. */
import { once } from 'node:events';
import { createServer } from 'node:http';

import type { ExecutionContext } from 'ava';
import fastify from 'fastify';
import { createFileServer, createStaticHandler, frontDoor, type StaticHandlerOptions } from 'zerosend';
import fastifyStatic from 'zerosend/fastify';

import { portOf } from './wire.js';

export interface FrontEnd {
  name: 'plugin' | 'handler' | 'server' | 'front door';
  port: number;
}

/** The options that all of them have. */
export type FrontEndOptions = Omit<StaticHandlerOptions, 'allowedPath' | 'setHeaders' | 'onFile' | 'conformance'>;

/** The plugin, the handler, the native server and the front door, each serving `root` at `/`. Closed after the test. */
export async function frontEnds(t: ExecutionContext, root: string, options: FrontEndOptions = {}): Promise<FrontEnd[]> {
  const app = fastify({ forceCloseConnections: true });
  app.register(fastifyStatic, { root, ...options });
  await app.listen({ port: 0, host: '127.0.0.1' });
  t.teardown(() => app.close());

  const serve = createStaticHandler(root, options);
  const plain = createServer((request, response) => serve(request, response)).listen(0, '127.0.0.1');
  await once(plain, 'listening');
  t.teardown(() => {
    plain.close();
    plain.closeAllConnections();
    serve.close();
  });

  const server = createFileServer({ root, workers: 1, ...options });
  const { port } = (await server.listen()) as { port: number };
  t.teardown(() => server.close({ drain: 0 }));

  const behind = createServer((_, response) => void response.writeHead(404, { 'content-length': 0 }).end());
  frontDoor(behind, { root, ...options });
  behind.listen(0, '127.0.0.1');
  await once(behind, 'listening');
  t.teardown(() => {
    behind.close();
    behind.closeAllConnections();
  });

  return [
    { name: 'plugin', port: portOf(app.server) },
    { name: 'handler', port: portOf(plain) },
    { name: 'server', port },
    { name: 'front door', port: portOf(behind) },
  ];
}
