/** A real browser: the example site, a video that is sought in, a listing. Skipped, and said so, where Chromium is missing. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import fastify from 'fastify';
import { type Browser, chromium } from 'playwright-core';
import fastifyStatic, { type FastifyStaticOptions } from 'zerosend/fastify';

import { patternFile, scratch, sha256, until } from './support/files.js';
import { portOf } from './support/wire.js';

const CHROMIUM = '/usr/bin/chromium';
const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--autoplay-policy=no-user-gesture-required',
];

const browse = existsSync(CHROMIUM) ? test.serial : test.serial.skip;
if (!existsSync(CHROMIUM))
  console.warn(`skipped: the tests with a browser need ${CHROMIUM} (apt-get install chromium)`);

async function open(t: ExecutionContext): Promise<Browser> {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  t.teardown(() => browser.close());
  return browser;
}

/** A served directory, and what was answered. */
async function serve(t: ExecutionContext, options: FastifyStaticOptions) {
  const app = fastify();
  const answers: { url: string; status: number; range: string | undefined; road: string | null }[] = [];
  app.addHook('onResponse', async (request, reply) => {
    answers.push({
      url: request.url,
      status: reply.statusCode,
      range: request.headers.range,
      road: reply.zerosendRoad,
    });
  });
  await app.register(fastifyStatic, options);
  await app.listen({ port: 0, host: '127.0.0.1' });
  t.teardown(() => app.close());
  return { origin: `http://127.0.0.1:${portOf(app.server)}`, answers, app };
}

/** A film of 20 seconds whose index is at its end, so that a browser must jump; a sound of that length without ffmpeg. */
function film(directory: string): string {
  const path = join(directory, 'film.mp4');
  const source = ['-f', 'lavfi', '-i', 'testsrc2=size=640x360:rate=25:duration=20'];
  const coded = ['-c:v', 'libx264', '-preset', 'ultrafast', '-b:v', '6M', '-pix_fmt', 'yuv420p', '-g', '25'];
  if (spawnSync('ffmpeg', ['-loglevel', 'error', '-y', ...source, ...coded, path]).status === 0) return 'film.mp4';
  const samples = Buffer.alloc(20 * 44_100 * 4);
  for (let at = 0; at < samples.length; at += 2) samples.writeInt16LE((at * 37) % 20_000, at);
  const head = Buffer.alloc(44);
  head.write('RIFF', 0, 'latin1');
  head.writeUInt32LE(36 + samples.length, 4);
  head.write('WAVEfmt ', 8, 'latin1');
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(2, 22);
  head.writeUInt32LE(44_100, 24);
  head.writeUInt32LE(44_100 * 4, 28);
  head.writeUInt16LE(4, 32);
  head.writeUInt16LE(16, 34);
  head.write('data', 36, 'latin1');
  head.writeUInt32LE(samples.length, 40);
  writeFileSync(join(directory, 'film.wav'), Buffer.concat([head, samples]));
  return 'film.wav';
}

browse('the example site loads whole, and a second visit is 304', async (t) => {
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

browse('a video plays, and seeks by ranges', async (t) => {
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
  await page.waitForFunction('document.querySelector("video").readyState >= 1');
  t.true(Math.abs(((await page.evaluate('document.querySelector("video").duration')) as number) - 20) < 1);
  await page.evaluate('document.querySelector("video").play()');
  await page.waitForFunction('document.querySelector("video").currentTime > 0.5');
  for (const second of [15, 3, 18]) {
    await page.evaluate(`new Promise((resolve) => {
      const video = document.querySelector('video');
      video.onseeked = resolve;
      video.currentTime = ${second};
    })`);
    await page.waitForFunction(`document.querySelector('video').currentTime >= ${second}`);
  }
  await page.waitForFunction('document.querySelector("video").currentTime > 18.3');
  t.is(await page.evaluate('document.querySelector("video").error'), null);
  await page.close();
  await until(() => answers.some(({ status, range }) => status === 206 && range !== undefined && range !== 'bytes=0-'));
  t.true(answers.filter(({ url }) => url.endsWith(name)).every(({ status }) => status === 206));
  t.log(
    `${name}: ${answers.map(({ range, road }) => `${range} ${road}`).join(', ')}; ${JSON.stringify(app.zerosend.stats())}`,
  );
});

browse('a listing, and a download from it, byte for byte', async (t) => {
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
