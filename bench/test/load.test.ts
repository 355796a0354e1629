import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { parseLoad, runLoad } from '../src/load.ts';

// Output of wrk 4.1.0.
const OUTPUT = `Running 1s test @ http://127.0.0.1:9933/ok
  1 threads and 4 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   685.47us    1.18ms  16.64ms   92.05%
    Req/Sec     9.64k     4.99k   15.73k    70.00%
  9561 requests in 1.00s, 10.48MB read
Requests/sec:   9555.09
Transfer/sec:     10.47MB
zerosend-bench {"seconds":1.000618,"requests":9561,"bytes":10985589,"latencyMs":{"p50":0.321,"p90":1.544,"p99":6.006,"max":16.636},"errors":{"connect":0,"read":0,"write":0,"status":0,"timeout":0}}
`;

const STALLED = `  0 requests in 1.00s, 528.00B read
zerosend-bench {"seconds":1.002703,"requests":0,"bytes":528,"latencyMs":null,"errors":{"connect":0,"read":0,"write":0,"status":0,"timeout":0}}
`;

test('exact counts are parsed instead of the rounded text', () => {
  assert.deepEqual(parseLoad(OUTPUT), {
    seconds: 1.000618,
    requests: 9561,
    bytes: 10985589,
    latencyMs: { p50: 0.321, p90: 1.544, p99: 6.006, max: 16.636 },
    errors: { connect: 0, read: 0, write: 0, status: 0, timeout: 0 },
  });
});

test('a run without a complete response has bytes but no latency', () => {
  const { requests, bytes, latencyMs } = parseLoad(STALLED);
  assert.deepEqual({ requests, bytes, latencyMs }, { requests: 0, bytes: 528, latencyMs: null });
});

test('the error contains output without a result line', () => {
  assert.throws(() => parseLoad('unknown option'), /no result line:\nunknown option/);
});

test('the counters of wrk match the responses of the server', async () => {
  let requests = 0;
  const server = createServer((_request, response) => {
    requests++;
    response.end('x'.repeat(1000));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  try {
    const load = await runLoad({ url, connections: 2, seconds: 1, core: 0 });
    assert.ok(load.requests > 0 && load.requests <= requests, `${load.requests} counted, ${requests} served`);
    assert.ok(load.bytes > load.requests * 1000);
    assert.ok(load.latencyMs !== null && load.latencyMs.p50 <= load.latencyMs.p99);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test('a run with error responses fails', async () => {
  const server = createServer((_request, response) => response.writeHead(503).end());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  try {
    await assert.rejects(runLoad({ url, connections: 2, seconds: 1, core: 0 }), /responses were errors/);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
