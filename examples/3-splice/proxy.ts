/**
 * A proxy without copies: bytes go from client to target and back through two kernel pipes, which a connection holds only while they
 * contain bytes. It balances over two targets, one of which stops.
 *
 *   npx tsx examples/3-splice/proxy.ts                                 (runs a demonstration and exits)
 *   npx tsx examples/3-splice/proxy.ts --port 8080 --to 127.0.0.1:3000
 *
 * Look for: connections alternate between the targets; after one has stopped they all go to the other, without errors for the clients.
 *
 *   six requests: a b a b a b
 *   after b has stopped: a a a a a a
 *   12 connections, 1 retried, 0 unreachable
 */
import { once } from 'node:events';
import { createServer } from 'node:http';

import { createProxy } from 'zerosend';

import { isDemonstration, option, portOf } from '../common.js';

if (!isDemonstration()) {
  const proxy = await createProxy({
    listen: Number(option('port', '8080')),
    target: option('to', '127.0.0.1:3000').split(','),
  });
  console.log('listening on', proxy.address);
} else {
  const servers = await Promise.all(
    ['a', 'b'].map(async (name) => {
      const server = createServer((_, response) => response.setHeader('connection', 'close').end(name)).listen(
        0,
        '127.0.0.1',
      );
      await once(server, 'listening');
      return server;
    }),
  );
  const proxy = await createProxy({ target: servers.map(portOf), workers: 1, downTime: 60_000 });
  const { port } = proxy.address as { port: number };
  const six = async () => {
    const answers: string[] = [];
    for (let at = 0; at < 6; at++) answers.push(await (await fetch(`http://127.0.0.1:${port}`)).text());
    return answers.join(' ');
  };
  console.log(`six requests: ${await six()}`);
  servers[1]?.close();
  console.log(`after b has stopped: ${await six()}`);
  const { accepted, retries, unreachable } = proxy.stats();
  console.log(`${accepted} connections, ${retries} retried, ${unreachable} unreachable`);
  servers[0]?.close();
  await proxy.close();
}
