/** The exports of the module: with `import`, with `require`, and for plugins that depend on it by name. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';
import fastify from 'fastify';
import fastifyPlugin from 'fastify-plugin';
import fastifyStatic, * as all from 'zerosend/fastify';

import { scratch } from './support/files.js';

const wanted = [
  'function',
  'function',
  'function',
  'FST_STATIC_INVALID_OPTION',
  'FST_STATIC_INVALID_OPTION_VALUE',
  'FST_STATIC_MULTIROOT_LIST_CONFLICT',
  'FST_STATIC_INVALID_REDIRECT_URL',
  'FST_STATIC_FORBIDDEN_PATH',
];

test('import: default export, named export, errors', (t) => {
  t.is(all.default, fastifyStatic);
  t.is(all.fastifyStatic, fastifyStatic);
  t.is(fastifyStatic.errors, all.errors);
});

test('require: the function with .default, .fastifyStatic and .errors', (t) => {
  const program = `const p = require('zerosend/fastify');
    console.log(JSON.stringify([typeof p, typeof p.default, typeof p.fastifyStatic, ...Object.keys(p.errors)]))`;
  const output = execFileSync(process.execPath, ['-e', program], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.deepEqual(JSON.parse(output).sort(), [...wanted].sort(), process.version);
  t.deepEqual(JSON.parse(output).slice(0, 3), wanted.slice(0, 3), process.version);
});

test('a CommonJS application', (t) => {
  const root = scratch(t);
  writeFileSync(join(root, 'a.txt'), 'hello');
  const program = `const app = require('fastify')();
    app.register(require('zerosend/fastify'), { root: process.argv[1] });
    app.inject('/a.txt').then(({ body }) => console.log(body));`;
  const output = execFileSync(process.execPath, ['-e', program, root], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    env: {},
  });
  t.is(output, 'hello\n');
});

test('plugins that depend on @fastify/static accept it', async (t) => {
  const app = fastify();
  await app.register(fastifyStatic, { root: scratch(t) });
  await t.notThrowsAsync(
    async () => await app.register(fastifyPlugin(async () => {}, { name: 'x', dependencies: ['@fastify/static'] })),
  );
  await app.close();
});
