/** Calls all exports of the package, and prints the results. The argument is a writable directory. */
import { createServer as createHttpServer } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';

import * as zerosend from 'zerosend';
import * as plugin from 'zerosend/fastify';

const [directory = ''] = process.argv.slice(2);
const file = join(directory, 'a.txt');

const accepted: Socket[] = [];
const listener = createServer((socket) => accepted.push(socket.pause()));
await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
const { port } = listener.address() as { port: number };

async function socket(): Promise<Socket> {
  const made = connect(port, '127.0.0.1');
  await new Promise((resolve) => made.once('connect', resolve));
  return made;
}

const [a, b] = [await socket(), await socket()];

/** Calls by the name of the export; a dot separates a property. */
const TRIED: Record<string, () => unknown> = {
  FileCache: () => new zerosend.FileCache(),
  MappedFile: () => zerosend.MappedFile.open(file),
  Pipe: () => new zerosend.Pipe(),
  SharedBuffer: () => zerosend.SharedBuffer.create(null, { size: 4096 }),
  'SharedBuffer.open': () => zerosend.SharedBuffer.open('name'),
  'SharedBuffer.receive': () => zerosend.SharedBuffer.receive(a),
  'SharedBuffer.unlink': () => zerosend.SharedBuffer.unlink('name'),
  SharedRing: () => zerosend.SharedRing.create(null),
  'SharedRing.open': () => zerosend.SharedRing.open('name'),
  'SharedRing.receive': () => zerosend.SharedRing.receive(a),
  'SharedRing.unlink': () => zerosend.SharedRing.unlink('name'),
  allocPages: () => zerosend.allocPages(4096),
  createEchoServer: () => zerosend.createEchoServer({ listen: { port: 0 } }),
  createFileServer: () => zerosend.createFileServer({ root: directory }),
  'createFileServer.cache': () => zerosend.createFileServer({ root: directory, cache: false }),
  createProxy: () => zerosend.createProxy({ listen: { port: 0 }, target: { host: '127.0.0.1', port } }),
  createSplitter: () => zerosend.createSplitter(a, [b]),
  'createSplitter.file': () => zerosend.createSplitter({ file }, [b]),
  fileToPipe: () => zerosend.fileToPipe(file, 1),
  frontDoor: () => zerosend.frontDoor(createHttpServer(), { root: directory }),
  'frontDoor.tls': () => zerosend.frontDoor(createHttpsServer(), { root: directory, cache: false }),
  'frontDoor.fastify': () => plugin.frontDoor({ root: directory, cache: false }),
  memoryMaps: () => zerosend.memoryMaps(),
  'pageCache.residency': () => zerosend.pageCache.residency(file),
  'pageCache.evict': () => zerosend.pageCache.evict(file),
  'pageCache.warm': () => zerosend.pageCache.warm(file),
  'pageCache.status': () => zerosend.pageCache.status(),
  'pageCache.measure': () => zerosend.pageCache.measure(file),
  pipeStatistics: () => zerosend.pipeStatistics(),
  pipeToFile: () => zerosend.pipeToFile(a, join(directory, 'made')),
  probe: () => zerosend.probe(),
  receiveFile: () => zerosend.receiveFile(a, join(directory, 'made'), { length: 1 }),
  relay: () => zerosend.relay(a, b),
  sendFile: () => zerosend.sendFile(a, file),
  'sendFile.descriptor': () => zerosend.sendFile(1, file),
  sendFiles: () => zerosend.sendFiles(a, [Buffer.from('x'), { file }]),
  sendPages: () => zerosend.sendPages(a, Buffer.alloc(4096)),
  sendfile: () => zerosend.sendfile(1, 0, 0, 1),
  splice: () => zerosend.splice(0, 1, 1),
  tee: () => zerosend.tee(0, 1, 1),
  vmsplice: () => zerosend.vmsplice(1, Buffer.alloc(1)),
  // Supported on all platforms.
  createStaticHandler: () => typeof zerosend.createStaticHandler(directory),
  sliceRanges: () => zerosend.sliceRanges(10, 5).length,
  // Has no public constructor.
  CachedFile: () => 'no constructor',
};

const outcomes: Record<string, unknown> = {};
for (const [name, attempt] of Object.entries(TRIED)) {
  try {
    const given = attempt();
    const later = new Promise((resolve) => setTimeout(resolve, 2000, 'no result'));
    outcomes[name] = await Promise.race([given, later]);
  } catch (error) {
    outcomes[name] = (error as NodeJS.ErrnoException).code ?? String(error);
  }
}
const sockets = [a, b].map((one) => !one.destroyed && one.writable);
console.log(
  JSON.stringify({
    outcomes,
    names: [...Object.keys(zerosend), ...Object.keys(zerosend.pageCache).map((name) => `pageCache.${name}`)],
    plugin: Object.keys(plugin),
    sockets,
  }),
);
process.exit();
