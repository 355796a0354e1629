/**
 * A proxy that copies nothing: from client to target and back through two pipes of the kernel, which a connection holds only while
 * bytes are in them. Two targets, one of which goes away.
 *
 *   npx tsx examples/3-splice/proxy.ts                                 (shows itself and ends)
 *   npx tsx examples/3-splice/proxy.ts --port 8080 --to 127.0.0.1:3000
 *
 * Look for: the targets in turn; when one is gone its connections go to the other, and clients see nothing of it.
 *
 *   six requests: a b a b a b
 *   b is gone, six more: a a a a a a
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
  console.log(`b is gone, six more: ${await six()}`);
  const { accepted, retries, unreachable } = proxy.stats();
  console.log(`${accepted} connections, ${retries} retried, ${unreachable} unreachable`);
  servers[0]?.close();
  await proxy.close();
}
