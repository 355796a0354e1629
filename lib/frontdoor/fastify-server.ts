/** Creates the servers that Fastify creates by default, and finds the application of a server. */
import { subscribe } from 'node:diagnostics_channel';
import http, { type Server } from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';

import type { FastifyInstance } from 'fastify';

/** The options that Fastify passes to a `serverFactory`, which must apply them. */
export interface ServerOptions {
  http?: http.ServerOptions | null;
  https?: https.ServerOptions | true | null;
  http2?: boolean;
  http2SessionTimeout?: number;
  connectionTimeout?: number;
  keepAliveTimeout?: number;
  requestTimeout?: number;
  maxRequestsPerSocket?: number;
}

export type AnyServer = Server | https.Server | http2.Http2Server | http2.Http2SecureServer;

/** Creates a server as Fastify does. */
export function createServer(handler: http.RequestListener, options: ServerOptions): AnyServer {
  const secure = options.https === true ? {} : options.https;
  if (options.http2 === true) {
    const listener = handler as unknown as (
      request: http2.Http2ServerRequest,
      response: http2.Http2ServerResponse,
    ) => void;
    const server = secure
      ? http2.createSecureServer(secure as http2.SecureServerOptions, listener)
      : http2.createServer((options.http ?? {}) as http2.ServerOptions, listener);
    server.on('session', (session) => session.setTimeout(options.http2SessionTimeout ?? 0, () => session.close()));
    server.setTimeout(options.connectionTimeout ?? 0);
    return server;
  }
  const server = secure ? https.createServer(secure, handler) : http.createServer(options.http ?? {}, handler);
  if (options.keepAliveTimeout !== undefined) server.keepAliveTimeout = options.keepAliveTimeout;
  if (options.requestTimeout !== undefined) server.requestTimeout = options.requestTimeout;
  server.setTimeout(options.connectionTimeout ?? 0);
  if (options.maxRequestsPerSocket) server.maxRequestsPerSocket = options.maxRequestsPerSocket;
  return server;
}

/** Servers whose applications are being created. */
const pending = new WeakMap<object, (app: FastifyInstance) => void>();
let subscribed = false;

/** Calls `found` with the application of `server`, which is created after the server. */
export function onApplication(server: object, found: (app: FastifyInstance) => void): void {
  pending.set(server, found);
  if (subscribed) return;
  subscribed = true;
  subscribe('fastify.initialization', (message) => {
    const { fastify: app } = message as { fastify: FastifyInstance };
    pending.get(app.server)?.(app);
    pending.delete(app.server);
  });
}
