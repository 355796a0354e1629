/**
 * An Express application that serves files: one line replaces `express.static`.
 *
 *   npx tsx examples/5-today/express-app.ts                (runs a demonstration and exits)
 *   npx tsx examples/5-today/express-app.ts --port 3000
 *
 * Look for: a request for a missing file passes to the next handler, as with `express.static`.
 *
 *   GET /static/large.bin  200, 5000000 bytes
 *   GET /static/none       404, the application's 404 page
 *   GET /api               200, {"hello":"world"}
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { dirname } from 'node:path';

import express from 'express';
import { createStaticHandler } from 'zerosend';

import { isDemonstration, makeFile, option, portOf } from '../common.js';

const app = express();
app.use('/static', createStaticHandler(dirname(makeFile(5_000_000, undefined, 'large.bin')), { maxAge: '1h' }));
app.get('/api', (_, response) => {
  response.json({ hello: 'world' });
});
app.use((_, response) => {
  response.status(404).send("the application's 404 page");
});
const server = createServer(app).listen(Number(option('port', '0')), '127.0.0.1');
await once(server, 'listening');
const url = `http://127.0.0.1:${portOf(server)}`;
if (!isDemonstration()) console.log(`listening on ${url}`);
else {
  for (const path of ['/static/large.bin', '/static/none', '/api']) {
    const response = await fetch(url + path);
    const body = Buffer.from(await response.arrayBuffer());
    console.log(`GET ${path.padEnd(18)} ${response.status}, ${body.length > 1000 ? `${body.length} bytes` : body}`);
  }
  server.close();
  server.closeAllConnections();
}
