/** Files over HTTP: native server, front door, plugin and handler. */
import { setTimeout as sleep } from 'node:timers/promises';

import { abuse } from '../actors/abuse.js';
import { canary } from '../actors/canary.js';
import { changeFiles, disturbFuse, release } from '../actors/disturbances.js';
import { askForFiles, type Endpoint } from '../actors/http.js';
import { killClients, stopServers } from '../actors/processes.js';
import { Child } from '../child.js';
import type { ServeKind, Site } from '../children/serve.js';
import { excess, type Held, measure } from '../measure.js';
import type { Random } from '../random.js';
import { type Report, Trouble } from '../report.js';
import type { Area } from '../run.js';
import type { World } from '../world.js';

const KINDS: readonly ServeKind[] = ['server', 'door', 'plugin', 'handler'];
const CLIENTS = 24;
const ABUSERS = 8;
/** Maximum growth of a process after the first round, in bytes. */
const GROWTH = 300 << 20;

interface Server {
  kind: ServeKind;
  child: Child;
  endpoints: Endpoint[];
  base: Held | undefined;
}

export class HttpArea implements Area {
  readonly #world: World;
  readonly #report: Report;
  readonly #random: Random;
  #servers: Server[] = [];
  #control: { child: Child; port: number } | undefined;

  constructor(world: World, report: Report, random: Random) {
    this.#world = world;
    this.#report = report;
    this.#random = random;
  }

  async start(): Promise<void> {
    const child = Child.start(this.#report, 'control', 'serve');
    const { none } = await child.call<{ none: number }>('start', { kind: 'none', sites: [] });
    this.#control = { child, port: none };
    this.#servers = await Promise.all(KINDS.map((kind) => this.#startServer(kind, this.#random.fork())));
  }

  async #startServer(kind: ServeKind, random: Random): Promise<Server> {
    const world = this.#world;
    const files = [...world.files, ...(world.fuse?.files ?? []), ...(world.coarse?.files ?? [])];
    const sites: Site[] = [
      {
        name: 'main',
        root: world.root,
        options: { cache: random.pick([undefined, true, false, { maxFileSize: 65_536, maxFiles: 20 }]) },
      },
      { name: 'beneath', root: world.releases.link, options: { symlinks: 'beneath' } },
      {
        name: 'mmap',
        root: world.root,
        options: { method: random.pick(['mmap', 'sendfile', 'splice', 'read-write']), cache: true },
      },
      { name: 'content', root: world.root, options: { etag: 'content', symlinks: 'beneath' } },
    ];
    // The root is a mount whose daemon is sometimes killed.
    if (world.fuse !== undefined) {
      sites.push({
        name: 'mount',
        root: world.fuse.mount.path,
        options: { symlinks: random.pick(['follow', 'beneath'] as const) },
      });
    }
    if (kind === 'server') sites.push({ name: 'few', root: world.root, options: {}, requestsPerConnection: 3 });
    const child = Child.start(this.#report, kind, 'serve');
    const ports = await child.call<Record<string, number>>('start', { kind, sites });
    const trouble = new Trouble();
    const endpoints = sites.map(
      ({ name, requestsPerConnection }): Endpoint => ({
        kind,
        child,
        port: ports[name] as number,
        site: name,
        files: name === 'beneath' ? world.releases.files : name === 'mount' ? (world.fuse?.files ?? []) : files,
        below: name === 'mount' ? 'fuse/' : '',
        trouble,
        requestsPerConnection,
        tags: new Map(),
      }),
    );
    this.#report.log(`${kind}: ${JSON.stringify(sites.map(({ name, options }) => ({ name, ...options })))}`);
    return { kind, child, endpoints, base: undefined };
  }

  async round(signal: AbortSignal): Promise<void> {
    const [world, report, random] = [this.#world, this.#report, this.#random];
    const endpoints = this.#servers.flatMap((server) => server.endpoints);
    const actors: Promise<void>[] = [];
    for (let at = 0; at < CLIENTS; at++) actors.push(askForFiles(world, endpoints, report, random.fork(), signal));
    for (let at = 0; at < ABUSERS; at++) actors.push(abuse(endpoints, report, random.fork(), signal));
    for (const { endpoints } of this.#servers) {
      const [main] = endpoints;
      if (main !== undefined) actors.push(canary(world, main, this.#control!.port, report, random.fork(), signal));
    }
    actors.push(
      stopServers(
        this.#servers.map(({ child }) => child),
        report,
        random.fork(),
        signal,
      ),
      killClients(world, endpoints, report, random.fork(), signal),
    );
    actors.push(changeFiles(world.files, report, random.fork(), signal), release(world, report, random.fork(), signal));
    if (world.coarse !== undefined) actors.push(changeFiles(world.coarse.files, report, random.fork(), signal));
    if (world.fuse !== undefined) {
      actors.push(changeFiles(world.fuse.files, report, random.fork(), signal));
      actors.push(disturbFuse(world.fuse, report, random.fork(), signal));
    }
    await Promise.all(actors);
  }

  async check(): Promise<void> {
    await Promise.all(this.#servers.map((server) => this.#checkServer(server)));
  }

  /** Resources must be as after the first round, and no connection may be left. */
  async #checkServer(server: Server): Promise<void> {
    const { child, kind } = server;
    if (!child.running) return;
    const end = performance.now() + 20_000;
    let problem: string | undefined;
    let held: Held | undefined;
    do {
      await child.call('collect');
      held = measure(child.pid);
      if (held === undefined) return;
      problem =
        server.base === undefined
          ? held.closeWait > 0
            ? `${held.closeWait} sockets in CLOSE-WAIT`
            : undefined
          : excess(server.base, held);
      if (problem === undefined) break;
      await sleep(500);
    } while (performance.now() < end);
    if (problem !== undefined) this.#report.fault(kind, 'resources leaked in a round', problem);
    if (server.base !== undefined && held.rss > server.base.rss + GROWTH) {
      this.#report.fault(kind, 'memory grows', `${server.base.rss >> 20} -> ${held.rss >> 20} MiB`);
    }
    server.base ??= held;
    this.#report.count('torture', 'processes measured');
  }

  async end(): Promise<void> {
    await Promise.all([...this.#servers, this.#control].map((server) => server?.child.end()));
  }
}
