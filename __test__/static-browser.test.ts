/** The plugin in a browser: the example site, seeking in a video, a listing. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';
import fastify from 'fastify';
import fastifyStatic, { type FastifyStaticOptions } from 'zerosend/fastify';

import { browse, film, open, playAndSeek } from './support/browser.js';
import { patternFile, scratch, sha256, until } from './support/files.js';
import { portOf } from './support/wire.js';

/** A served directory and the responses. */
async function serve(t: ExecutionContext, options: FastifyStaticOptions) {
  const app = fastify();
  const answers: { url: string; status: number; range: string | undefined; method: string | null }[] = [];
  app.addHook('onResponse', async (request, reply) => {
    answers.push({
      url: request.url,
      status: reply.statusCode,
      range: request.headers.range,
      method: reply.zerosendMethod,
    });
  });
  await app.register(fastifyStatic, options);
  await app.listen({ port: 0, host: '127.0.0.1' });
  t.teardown(() => app.close());
  return { origin: `http://127.0.0.1:${portOf(app.server)}`, answers, app };
}

browse('the example site loads without errors, and a second visit gets 304', async (t) => {
  const { origin, answers } = await serve(t, { root: join(process.cwd(), 'examples', 'site') });
  const browser = await open(t);
  const page = await browser.newPage();
  const failed: string[] = [];
  page.on('requestfailed', (request) => failed.push(request.url()));
  page.on('pageerror', (error) => failed.push(error.message));
  await page.goto(`${origin}/`, { waitUntil: 'networkidle' });
  t.regex(await page.title(), /zerosend/);
  t.not(await page.evaluate('getComputedStyle(document.querySelector("h1")).fontFamily'), '');
  t.true(
    (await page.evaluate('[...document.images].every((image) => image.complete && image.naturalWidth > 0)')) as boolean,
  );
  await page.click('a[href="/docs/"]');
  await page.waitForLoadState('networkidle');
  t.regex(page.url(), /\/docs\/$/);
  await page.goto(`${origin}/`, { waitUntil: 'networkidle' });
  t.deepEqual(failed, []);
  t.deepEqual(
    answers.filter(({ status }) => status !== 200 && status !== 304),
    [],
  );
  t.true(answers.some(({ status }) => status === 304));
});

browse('a video plays and seeks with range requests', async (t) => {
  const root = scratch(t);
  const name = film(root);
  writeFileSync(
    join(root, 'index.html'),
    `<!doctype html><title>film</title><video src="/${name}" muted preload="metadata"></video>`,
  );
  const { origin, answers, app } = await serve(t, { root });
  const browser = await open(t);
  const page = await browser.newPage();
  await page.goto(origin);
  await playAndSeek(t, page);
  await page.close();
  await until(() => answers.some(({ status, range }) => status === 206 && range !== undefined && range !== 'bytes=0-'));
  t.true(answers.filter(({ url }) => url.endsWith(name)).every(({ status }) => status === 206));
  t.log(
    `${name}: ${answers.map(({ range, method }) => `${range} ${method}`).join(', ')}; ${JSON.stringify(app.zerosend.stats())}`,
  );
});

browse('a file is downloaded from a directory list', async (t) => {
  const root = scratch(t);
  mkdirSync(join(root, 'files', 'deeper'), { recursive: true });
  const file = patternFile(join(root, 'files'), 'odd #name? 100%.bin', 3_000_000);
  const { origin } = await serve(t, {
    root,
    list: {
      format: 'html',
      names: ['/'],
      render: (dirs, files) =>
        `<!doctype html><ul>${[...dirs, ...files].map(({ href, name }) => `<li><a href="${href}">${name}</a>`).join('')}</ul>`,
    },
  });
  const browser = await open(t);
  const page = await browser.newPage();
  await page.goto(`${origin}/`);
  await page.click('text=files');
  t.deepEqual(await page.locator('li').allTextContents(), ['deeper', 'odd #name? 100%.bin']);
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('text=odd')]);
  t.is(
    sha256(execFileSync('cat', [await download.path()], { maxBuffer: 2 ** 26 })),
    sha256(execFileSync('cat', [file], { maxBuffer: 2 ** 26 })),
  );
});
