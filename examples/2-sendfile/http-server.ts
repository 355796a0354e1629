/**
 * An HTTP file server on plain `node:http`: Node writes the headers, `sendfile` the bodies. Ranges, validators, content types and errors
 * are the same as with the Fastify plugin.
 *
 *   npx tsx examples/2-sendfile/http-server.ts                 (runs a demonstration and exits)
 *   npx tsx examples/2-sendfile/http-server.ts --port 8080 --root .
 *
 * Look for: 206 with the bytes of the range, 304 when the client's copy is current, 404 for a path outside the root.
 *
 *   GET /file.bin          200 5000000 bytes, application/octet-stream
 *   GET /file.bin, a range 206 100 bytes, bytes 1000-1099/5000000
 *   GET /file.bin, again   304 0 bytes
 *   GET /../etc/passwd     404 0 bytes
 */
import { once } from 'node:events';
import { createServer, get, type IncomingMessage } from 'node:http';
import { dirname } from 'node:path';

import { createStaticHandler } from 'zerosend';

import { isDemonstration, makeFile, option, portOf } from '../common.js';

const demonstration = isDemonstration();
const serve = createStaticHandler(demonstration ? dirname(makeFile(5_000_000)) : option('root', '.'));
const server = createServer((request, response) => serve(request, response, () => response.writeHead(404).end()));
server.listen(Number(option('port', '0')), '127.0.0.1');
await once(server, 'listening');
const url = `http://127.0.0.1:${portOf(server)}`;
if (!demonstration) console.log(`listening on ${url}`);
else {
  let etag = '';
  for (const [name, path, headers] of [
    ['GET /file.bin', '/file.bin', () => ({})],
    ['GET /file.bin, a range', '/file.bin', () => ({ range: 'bytes=1000-1099' })],
    ['GET /file.bin, again', '/file.bin', () => ({ 'if-none-match': etag })],
    ['GET /../etc/passwd', '/../etc/passwd', () => ({})],
  ] as const) {
    const [response] = (await once(get(url, { path, headers: headers() }), 'response')) as [IncomingMessage];
    let bytes = 0;
    for await (const chunk of response) bytes += (chunk as Buffer).length;
    etag = response.headers.etag ?? etag;
    const more =
      response.headers['content-range'] ?? (response.statusCode === 200 ? response.headers['content-type'] : undefined);
    console.log(`${name.padEnd(22)} ${response.statusCode} ${bytes} bytes${more === undefined ? '' : `, ${more}`}`);
  }
  server.close();
  server.closeAllConnections();
}
