/** A server in Node: `node-peer.ts <name> <root or target>`; prints its port. SIGTERM closes it as its documentation recommends. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import fastifyStatic from '@fastify/static';
import express from 'express';
import fastify from 'fastify';
import type { SocketAddress } from 'zerosend';

import { plugin, zerosend } from '../src/under-test.js';

const [name = '', argument = '', path = ''] = process.argv.slice(2);
const where = path === '' ? { port: 0, host: '127.0.0.1' } : { path };
const portOf = (server: Server) => (server.address() as Partial<AddressInfo>).port ?? 0;

let close: () => Promise<unknown>;
let port: number;

switch (name) {
  case '@fastify/static':
  case 'zerosend plugin': {
    const app = fastify();
    if (name === 'zerosend plugin') await app.register(plugin.default, { root: argument });
    else await app.register(fastifyStatic, { root: argument });
    await app.listen(where);
    port = portOf(app.server);
    close = () => app.close();
    break;
  }
  case 'express.static': {
    const app = express();
    app.use(express.static(argument));
    const server = createServer(app);
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(where, resolve));
    port = portOf(server);
    close = () => new Promise((resolve) => server.close(resolve));
    break;
  }
  case 'zerosend server': {
    const server = zerosend.createFileServer({ root: argument, workers: 1, ...(path === '' ? {} : { path }) });
    const address = await server.listen();
    port = 'port' in address ? address.port : 0;
    close = () => server.close();
    break;
  }
  case 'zerosend proxy': {
    const target = JSON.parse(argument) as number | string | number[];
    const address = (one: number | string): SocketAddress =>
      typeof one === 'string' && one.startsWith('/') ? { path: one } : one;
    const proxy = await zerosend.createProxy({
      target: Array.isArray(target) ? target.map(address) : address(target),
      workers: 1,
    });
    port = 'port' in proxy.address ? proxy.address.port : 0;
    close = () => proxy.close();
    break;
  }
  default:
    throw new Error(`unknown server '${name}'`);
}
process.on('SIGTERM', () => void close().then(() => process.exit()));
// Exits with its parent process.
process.stdin.on('end', () => process.exit()).resume();
console.log(port);
