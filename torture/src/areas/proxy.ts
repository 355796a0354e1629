/** Proxies of all methods with mirrors of all kinds. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import type { ProxyMirror, ProxyOptions, RelayStatistics } from 'zerosend';

import { HEAD, randomPlan, runStream, type Stream, Upstream } from '../actors/streams.js';
import { Child } from '../child.js';
import { excess, type Held, measure } from '../measure.js';
import type { Random } from '../random.js';
import { make } from '../records.js';
import type { Report } from '../report.js';
import type { Area } from '../run.js';
import type { World } from '../world.js';

const CLIENTS = 16;
/** The reserve of all workers of a process, 64 each. */
const POOLED_PIPES = 9 * 64;

/** A proxy, and its streams since the last check. */
interface Proxy {
  name: string;
  /** Undefined for the upstream without a proxy: failures there are faults of this program. */
  child: Child | undefined;
  port: number;
  streams: Stream[];
  /** The mirrors, for the check after a round. */
  each: string | undefined;
  shared: string | undefined;
  lossy: string | undefined;
}

export class ProxyArea implements Area {
  readonly #world: World;
  readonly #report: Report;
  readonly #random: Random;
  readonly #directory: string;
  #upstream: Upstream | undefined;
  #children: { child: Child; base: Held | undefined }[] = [];
  #proxies: Proxy[] = [];

  constructor(world: World, report: Report, random: Random) {
    this.#world = world;
    this.#report = report;
    this.#random = random;
    this.#directory = join(world.directory, `mirrors-${random.int(0, 1e9)}`);
    mkdirSync(this.#directory);
  }

  async start(): Promise<void> {
    const upstream = await Upstream.listen(this.#random.fork());
    this.#upstream = upstream;
    this.#proxies.push({
      name: 'none',
      child: undefined,
      port: upstream.port,
      streams: [],
      each: undefined,
      shared: undefined,
      lossy: undefined,
    });
    const method = () => this.#random.pick(['auto', 'splice', 'read-write'] as const);
    const target = { host: '127.0.0.1', port: upstream.port };
    const file = (name: string) => join(this.#directory, name);
    const block = (path: string, direction: 'up' | 'down' = 'up'): ProxyMirror => ({
      file: path,
      policy: 'block',
      direction,
    });
    const { slowDisk, small } = this.#world;
    const shared = file('shared');
    const first: Record<string, ProxyOptions> = {
      plain: { target, method: 'splice', workers: 1 },
      each: { target, method: method(), workers: 4, mirror: [block(file('each-{n}'))] },
      shared: { target, method: method(), workers: 2, mirror: [block(shared), block(file('down'), 'down')] },
      ...(slowDisk === undefined
        ? {}
        : {
            slow: {
              target,
              method: method(),
              workers: 1,
              mirror: [{ file: join(slowDisk.mount.path, 'mirror'), policy: 'drop' }],
            },
          }),
      ...(small === undefined
        ? {}
        : {
            small: { target, method: method(), workers: 1, mirror: [{ file: join(small, 'mirror'), policy: 'drop' }] },
          }),
    };
    const second: Record<string, ProxyOptions> = {
      'shared too': { target, method: method(), workers: 2, mirror: [block(shared)] },
    };
    for (const [index, options] of [first, second].entries()) {
      const child = Child.start(this.#report, 'proxy', 'proxy');
      const ports = await child.call<Record<string, number>>('start', options);
      this.#children.push({ child, base: undefined });
      for (const name of Object.keys(options)) {
        this.#proxies.push({
          name,
          child,
          port: ports[name] as number,
          streams: [],
          each: name === 'each' ? file('each-') : undefined,
          shared: name.startsWith('shared') ? shared : undefined,
          lossy:
            name === 'slow' && slowDisk !== undefined
              ? join(slowDisk.mount.backing, 'mirror')
              : name === 'small' && small !== undefined
                ? join(small, 'mirror')
                : undefined,
        });
      }
      this.#report.log(
        `proxy ${index}: ${Object.entries(options)
          .map(([name, { method }]) => `${name} by ${method}`)
          .join(', ')}`,
      );
    }
  }

  async round(signal: AbortSignal): Promise<void> {
    const actors: Promise<void>[] = [];
    for (let at = 0; at < CLIENTS; at++) actors.push(this.#client(this.#random.fork(), signal));
    for (const proxy of this.#proxies) actors.push(this.#canary(proxy, this.#random.fork(), signal));
    actors.push(this.#disturbDisks(this.#random.fork(), signal));
    await Promise.all(actors);
  }

  async #client(random: Random, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const proxy = random.pick(this.#proxies);
      await this.#stream(proxy, random, randomPlan(random));
      if (random.chance(0.2)) await sleep(random.int(0, 30));
    }
  }

  async #stream(proxy: Proxy, random: Random, plan = randomPlan(random)): Promise<Stream> {
    const stream = await runStream(
      proxy.port,
      this.#upstream!,
      plan,
      random,
      this.#report,
      `proxy ${proxy.name}`,
      () => proxy.child?.running === false,
    );
    proxy.streams.push(stream);
    return stream;
  }

  /** A small stream that must not wait for a mirror. */
  async #canary(proxy: Proxy, random: Random, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(random.int(50, 200));
      const timed = async (to: Proxy) => {
        const begun = performance.now();
        const plan = {
          ...randomPlan(random),
          up: 100,
          down: 100,
          mode: 'answer',
          slowClient: false,
          slowUpstream: false,
        } as const;
        await this.#stream(to, random, plan);
        return performance.now() - begun;
      };
      // The time without a proxy is that of the machine and of this program.
      const [took, control] = await Promise.all([timed(proxy), timed(this.#proxies[0] as Proxy)]);
      this.#report.count('canary', 'streams');
      if (took > 4000 + 2 * control) {
        const times = `${took.toFixed()} ms, and ${control.toFixed()} without a proxy`;
        this.#report.fault(`proxy ${proxy.name}`, 'a small stream was delayed', times);
      }
    }
  }

  /** The disk of one mirror is slow or hangs, that of another is full and then has room again. */
  async #disturbDisks(random: Random, signal: AbortSignal): Promise<void> {
    const { slowDisk, small } = this.#world;
    while (!signal.aborted) {
      await sleep(random.int(200, 1000));
      if (small !== undefined && random.chance(0.5)) {
        const path = join(small, 'mirror');
        if (existsSync(path)) truncateSync(path, 0);
        this.#report.count('proxy small', 'file system emptied');
      }
      if (slowDisk === undefined) continue;
      const hang = random.chance(0.3);
      await slowDisk.mount.set('write', hang ? { hang: true } : { delay: random.int(20, 500) });
      this.#report.count('proxy slow', hang ? 'disk hung' : 'disk slowed down');
      await sleep(random.int(1000, hang ? 7000 : 3000));
      await slowDisk.mount.clear();
    }
  }

  async check(): Promise<void> {
    for (const held of this.#children) await this.#checkChild(held);
    const stats: Record<string, RelayStatistics> = {};
    for (const { child } of this.#children) Object.assign(stats, child.running ? await child.call('stats') : {});
    for (const proxy of this.#proxies) {
      if (proxy.child?.running === false) continue;
      const counts = stats[proxy.name];
      if (counts !== undefined && counts.connections !== 0) {
        this.#report.fault(`proxy ${proxy.name}`, 'connections leaked', `${counts.connections}`);
      }
      if (proxy.each !== undefined) this.#checkEach(proxy, proxy.each);
      if (proxy.lossy !== undefined) this.#checkLossy(proxy, proxy.lossy);
    }
    this.#checkShared();
    for (const proxy of this.#proxies) proxy.streams = [];
  }

  async #checkChild(held: { child: Child; base: Held | undefined }): Promise<void> {
    const { child } = held;
    if (!child.running) return;
    const end = performance.now() + 20_000;
    let problem: string | undefined;
    let now: Held | undefined;
    do {
      await child.call('collect');
      now = measure(child.pid);
      if (now === undefined) return;
      problem = held.base === undefined ? undefined : excess(held.base, now, POOLED_PIPES);
      const counts = Object.values(await child.call<Record<string, RelayStatistics>>('stats'));
      const connections = counts.reduce((sum, one) => sum + one.connections, 0);
      if (problem === undefined && connections > 0) problem = `${connections} connections`;
      if (problem === undefined) break;
      await sleep(300);
    } while (performance.now() < end);
    if (problem !== undefined) this.#report.fault('proxy', 'resources leaked in a round', problem);
    held.base ??= now;
  }

  /** One file for each connection: it has the stream from its start, complete if the stream was. */
  #checkEach(proxy: Proxy, prefix: string): void {
    const area = 'proxy each';
    const files = readdirSync(this.#directory).filter((name) => name.startsWith('each-'));
    const byId = new Map(proxy.streams.map((stream) => [stream.plan.id, stream]));
    for (const name of files) {
      const path = `${prefix}${name.slice('each-'.length)}`;
      const bytes = readFileSync(path);
      rmSync(path);
      if (bytes.length === 0) continue;
      const id = Number(bytes.subarray(0, HEAD).toString('latin1').split(' ')[0]);
      const stream = byId.get(id);
      if (stream === undefined) {
        if (bytes.length >= HEAD)
          this.#report.fault(
            area,
            'a mirror of an unknown stream',
            `${name}: ${bytes.subarray(0, HEAD).toString('latin1')}`,
          );
        continue;
      }
      byId.delete(id);
      const body = bytes.subarray(HEAD);
      const expected = make(id * 2, 1, body.length);
      const wrong = firstDifference(body, expected);
      this.#report.count(area, 'mirrored bytes verified', body.length);
      if (wrong !== undefined) {
        this.#report.fault(
          area,
          'wrong bytes in a mirror',
          `${name} at ${HEAD + wrong}: ${body.subarray(wrong, wrong + 32).toString('hex')}; ${JSON.stringify(stream.plan)}`,
        );
      }
      if (stream.complete && bytes.length !== stream.written) {
        this.#report.fault(
          area,
          'a mirror is not complete',
          `${bytes.length} of ${stream.written}; ${JSON.stringify(stream.plan)}`,
        );
      }
    }
    // A stream that was reset at once may have no file.
    for (const { complete, plan } of byId.values()) {
      if (complete) this.#report.fault(area, 'a stream without a mirror file', JSON.stringify(plan));
    }
  }

  /** One file for all connections: it has each byte once, in any order of the streams. */
  #checkShared(): void {
    const sharing = this.#proxies.filter(({ shared }) => shared !== undefined);
    const path = sharing[0]?.shared;
    if (path === undefined || !existsSync(path)) return;
    const streams = sharing.flatMap((proxy) => proxy.streams);
    const bytes = readFileSync(path);
    truncateSync(path, 0);
    const min = streams.reduce((sum, { complete, written }) => sum + (complete ? written : 0), 0);
    const max = streams.reduce((sum, { written }) => sum + written, 0);
    this.#report.count('proxy shared', 'mirrored bytes', bytes.length);
    if (bytes.length < min)
      this.#report.fault('proxy shared', 'bytes are missing in a shared mirror', `${bytes.length} of ${min} to ${max}`);
    if (bytes.length > max)
      this.#report.fault('proxy shared', 'too many bytes in a shared mirror', `${bytes.length} of ${min} to ${max}`);
    this.#checkZeros('proxy shared', bytes);
  }

  /** A mirror may miss bytes, but has no other bytes. */
  #checkLossy(proxy: Proxy, path: string): void {
    if (!existsSync(path)) return;
    const bytes = readFileSync(path);
    if (statSync(path).size > 64 << 20) truncateSync(path, 0);
    this.#checkZeros(`proxy ${proxy.name}`, bytes);
  }

  /** Content has no more than 7 zeros in a row. */
  #checkZeros(area: string, bytes: Buffer): void {
    const at = bytes.indexOf(Buffer.alloc(16));
    if (at < 0) return;
    let end = at;
    while (end < bytes.length && bytes[end] === 0) end += 1;
    this.#report.fault(area, 'zeros in a mirror', `${end - at} bytes at ${at} of ${bytes.length}`);
  }

  async end(): Promise<void> {
    await Promise.all(this.#children.map(({ child }) => child.end()));
    this.#upstream?.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

function firstDifference(a: Buffer, b: Buffer): number | undefined {
  if (a.equals(b)) return undefined;
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return at;
  return a.length;
}
