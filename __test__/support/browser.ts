/** A browser for tests, and media files. Tests are skipped with a warning if Chromium is not installed. */
import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import { type Browser, chromium, type Page } from 'playwright-core';

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

/** A test that requires a browser. */
export const browse = existsSync(CHROMIUM) ? test.serial : test.serial.skip;
if (!existsSync(CHROMIUM)) console.warn(`skipped: tests with a browser need ${CHROMIUM} (apt-get install chromium)`);

/** A browser that is closed after the test. */
export async function open(t: ExecutionContext): Promise<Browser> {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  t.teardown(() => browser.close());
  return browser;
}

/** A video of 20 seconds with its index at the end, so that the browser must seek; audio of the same length without ffmpeg. */
export function film(directory: string): string {
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

/** Plays the video of the page and seeks in it. */
export async function playAndSeek(t: ExecutionContext, page: Page): Promise<void> {
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
}
