/** Functions of the application that stand behind ours: what they return, throw and call is what it is without us. */
import test, { type ExecutionContext } from 'ava';
import fastify, { type FastifyInstance } from 'fastify';
import fastifyStatic, { type FastifyStaticOptions, frontDoor } from 'zerosend/fastify';

import { patternFile, scratch, until } from '../support/files.js';
import { get, portOf } from '../support/wire.js';

async function plugin(
  t: ExecutionContext,
  options: Partial<FastifyStaticOptions>,
  prepare: (app: FastifyInstance) => void,
): Promise<FastifyInstance> {
  const root = scratch(t);
  patternFile(root, 'a.txt', 10);
  const app = fastify();
  prepare(app);
  await app.register(fastifyStatic, { root, dotfiles: 'deny', ...options });
  t.teardown(() => app.close());
  return app;
}

/** Requests that end in an error, with its status. */
const failing = [
  ['/a.txt', { range: 'bytes=99-' }, 416],
  ['/a.txt', { 'if-match': '"other"' }, 412],
  ['/.hidden', {}, 403],
  ['/a//b', {}, 403],
] as const;

test('what an async error handler resolves with is the answer', async (t) => {
  const app = await plugin(t, {}, (instance) => {
    instance.setErrorHandler(async function (
      this: FastifyInstance,
      error: Error & { statusCode?: number },
      request,
      reply,
    ) {
      await null;
      t.is(this, instance);
      t.is(request.method, 'GET');
      reply.code(error.statusCode ?? 500);
      return `handled ${error.statusCode}`;
    });
  });
  for (const [url, headers, status] of failing) {
    const response = await app.inject({ url, headers });
    t.is(response.statusCode, status, url);
    t.is(response.payload, `handled ${status}`);
  }
});

test('what an error handler returns at once is the answer', async (t) => {
  const app = await plugin(t, {}, (instance) => instance.setErrorHandler(() => ({ handled: true })));
  for (const [url, headers] of failing) t.deepEqual((await app.inject({ url, headers })).json(), { handled: true });
});

for (const how of ['throws', 'rejects'] as const) {
  test(`an error handler that ${how} is called once, and its error goes to the handler around it`, async (t) => {
    let called = 0;
    const app = await plugin(t, {}, (instance) => {
      instance.setErrorHandler((): unknown => {
        called += 1;
        const error = new Error('of the handler');
        if (how === 'throws') throw error;
        return Promise.reject(error);
      });
    });
    // The route of an application without the plugin, to compare with.
    app.get('/route', () => {
      throw new Error('of the route');
    });
    for (const url of ['/route', '/.hidden']) {
      called = 0;
      const response = await app.inject(url);
      t.is(called, 1, url);
      t.is(response.statusCode, 500);
      t.is(response.json().message, 'of the handler');
    }
  });
}

test('error handlers behind onFile', async (t) => {
  const onFile = async () => {
    throw Object.assign(new Error('no'), { statusCode: 451 });
  };
  const app = await plugin(t, { onFile }, (instance) =>
    instance.setErrorHandler(async (error: Error, _request, reply) => {
      reply.code(200);
      return error.message;
    }),
  );
  const response = await app.inject('/a.txt');
  t.is(response.payload, 'no');
});

test('the front door asks for request ids as the application does', async (t) => {
  const root = scratch(t);
  patternFile(root, 'a.txt', 10);
  const lines: Record<string, unknown>[] = [];
  const owners: unknown[] = [];
  const app = fastify({
    logger: { stream: { write: (line: string) => void lines.push(JSON.parse(line)) } },
    serverFactory: frontDoor({ root, log: true }),
    genReqId(this: unknown) {
      owners.push(this);
      return `id-${owners.length}`;
    },
  });
  t.teardown(() => app.close());
  await app.listen({ port: 0, host: '127.0.0.1' });
  await get(portOf(app.server), '/a.txt');
  await until(() => lines.some(({ msg }) => msg === 'request completed'));
  await app.inject('/nothing');
  t.is(owners.length, 2);
  t.is(owners[0], owners[1]);
});
