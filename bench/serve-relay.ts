// Starts a relay that runs in Node: `serve-relay.ts <variant> <port> <target port>`.

import { connect, createServer } from 'node:net';

const [variant, port, target] = process.argv.slice(2);
if (variant === 'pipe') {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    const upstream = connect({ port: Number(target), host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    client.pipe(upstream).on('error', () => client.destroy());
    upstream.pipe(client).on('error', () => upstream.destroy());
  });
  server.listen(Number(port), '127.0.0.1', 4096);
} else {
  const { createProxy } = await import('zerosend');
  await createProxy({
    listen: Number(port),
    target: Number(target),
    workers: 1,
    method: variant === 'splice-64' ? 'splice' : (variant as 'auto' | 'splice' | 'read-write'),
    ...(variant === 'splice-64' ? { pipeSize: 65_536 } : {}),
  });
}
