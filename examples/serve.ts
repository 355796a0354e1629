/**
 * Serves a directory through Fastify and the plugin, and prints the URL.
 *
 *   npm start -- [dir] [--port N] [--host ADDRESS]
 *
 * Without arguments it serves `examples/site/`, whose large files are generated at the first start.
 */
import { statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import fastify from 'fastify';
import fastifyStatic from 'zerosend/fastify';

import { makeSiteMedia } from '../scripts/make-site-media.js';

const SITE = fileURLToPath(new URL('site', import.meta.url));

function fail(message: string): never {
  console.error(message);
  process.exit(2);
}

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        port: { type: 'string', short: 'p', default: '8080' },
        host: { type: 'string', default: '127.0.0.1' },
      },
    });
  } catch (error) {
    return fail(`${(error as Error).message}\nusage: npm start -- [dir] [--port N] [--host ADDRESS]`);
  }
}

const { values, positionals } = readArguments();
const port = Number(values.port);
if (!Number.isInteger(port) || port < 0 || port > 65535)
  fail(`invalid --port '${values.port}': use an integer from 0 to 65535`);
if (positionals.length > 1) fail(`too many directories: ${positionals.join(' ')}`);

const root = positionals[0] === undefined ? SITE : path.resolve(positionals[0]);
if (!statSync(root, { throwIfNoEntry: false })?.isDirectory()) fail(`'${root}' is not a directory`);
if (root === SITE) await makeSiteMedia();

const app = fastify();
await app.register(fastifyStatic, { root });
app.setNotFoundHandler((_request, reply) => {
  reply.code(404);
  return root === SITE ? reply.sendFile('404.html') : reply.type('text/plain').send('Not found\n');
});

try {
  const url = await app.listen({ port, host: values.host });
  console.log(`serving ${root} at ${url}`);
} catch (error) {
  const { code } = error as NodeJS.ErrnoException;
  console.error(
    code === 'EADDRINUSE' ? `port ${port} is in use; choose another with --port` : (error as Error).message,
  );
  process.exit(1);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void app.close());
