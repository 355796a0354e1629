/** The native server in a browser: seeking in a video, a listing, a download. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { createFileServer } from 'zerosend';

import { browse, film, open, playAndSeek } from './support/browser.js';
import { patternFile, scratch, sha256 } from './support/files.js';

browse('a video plays and seeks with range requests', async (t) => {
  const root = scratch(t);
  const name = film(root);
  writeFileSync(
    join(root, 'index.html'),
    `<!doctype html><title>film</title><video src="/${name}" muted preload="metadata"></video>`,
  );
  const server = createFileServer({ root });
  t.teardown(() => server.close({ drain: 0 }));
  const address = await server.listen();
  const page = await (await open(t)).newPage();
  const statuses: number[] = [];
  page.on('response', (response) => {
    if (response.url().endsWith(name)) statuses.push(response.status());
  });
  await page.goto('url' in address ? address.url : '');
  await playAndSeek(t, page);
  t.true(statuses.length > 1 && statuses.every((status) => status === 206), String(statuses));
});

browse('directory lists can be browsed and their files downloaded', async (t) => {
  const root = scratch(t);
  mkdirSync(join(root, 'files & <more>', 'deeper'), { recursive: true });
  const file = patternFile(join(root, 'files & <more>'), 'odd #name? 100%.bin', 3_000_000);
  writeFileSync(join(root, 'files & <more>', 'a.txt'), 'hello');
  const server = createFileServer({ root, list: true });
  t.teardown(() => server.close({ drain: 0 }));
  const address = await server.listen();
  const page = await (await open(t)).newPage();
  await page.goto('url' in address ? address.url : '');
  await page.click('text=files');
  t.is(await page.locator('h1').textContent(), 'Index of /files & <more>/');
  t.deepEqual(await page.locator('a').allTextContents(), ['../', 'deeper/', 'a.txt', 'odd #name? 100%.bin']);
  t.deepEqual(await page.locator('tbody tr:last-child td:nth-child(2)').allTextContents(), ['2.9 MiB']);
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('text=odd')]);
  t.is(sha256(readFileSync(await download.path())), sha256(readFileSync(file)));
  await page.click('text=a.txt');
  t.is(await page.locator('body').textContent(), 'hello');
  await page.goBack();
  await page.click('text=../');
  t.is(await page.locator('h1').textContent(), 'Index of /');
});
