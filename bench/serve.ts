// One server of the comparison: `serve.ts <variant> <root>`. Prints `listening <port>` and serves until its standard
// input ends, so that no server outlives the comparison that started it.

import { readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import Fastify, { type FastifyInstance } from 'fastify';

type Register = (app: FastifyInstance, root: string) => Promise<void>;

const prefix = '/static/';

const variants: Record<string, Register> = {
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

const [variant, root] = process.argv.slice(2);
const register = variants[variant ?? ''];
if (register === undefined || root === undefined) {
  console.error(
    `usage: serve.ts <${Object.keys(variants).join('|')}> <root>; got "${process.argv.slice(2).join(' ')}"`,
  );
  process.exit(2);
}

const app = Fastify({ logger: false });
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
console.log(`listening ${(app.server.address() as AddressInfo).port}`);

process.stdin.resume().on('end', () => process.exit());
