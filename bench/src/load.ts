// Runs wrk once and parses its counters.

import { fileURLToPath } from 'node:url';
import { run } from './run.ts';

export interface LoadOptions {
  url: string;
  connections: number;
  /** An integer, as wrk requires. */
  seconds: number;
  core: number;
  /** A new connection per request. */
  close?: boolean;
}

export interface LoadResult {
  seconds: number;
  requests: number;
  /** Bytes read from sockets: headers and bodies, including responses that were incomplete at the end of the run. */
  bytes: number;
  /** Null when no response was completed. */
  latencyMs: { p50: number; p90: number; p99: number; p999: number; max: number } | null;
  errors: { connect: number; read: number; write: number; status: number; timeout: number };
}

const REPORT = fileURLToPath(new URL('wrk-report.lua', import.meta.url));

export async function runLoad({ url, connections, seconds, core, close = false }: LoadOptions): Promise<LoadResult> {
  const output = await run('taskset', [
    '-c',
    String(core),
    'wrk',
    '-t',
    '1',
    '-c',
    String(connections),
    '-d',
    `${seconds}s`,
    '--timeout',
    '10s',
    ...(close ? ['-H', 'Connection: close'] : []),
    '-s',
    REPORT,
    url,
  ]);
  const result = parseLoad(output);
  const { connect, read, write, status } = result.errors;
  if (status > 0) throw new Error(`${url}: ${status} of ${result.requests} responses were errors`);
  if (connect + read + write > 0) throw new Error(`${url}: ${connect} connect, ${read} read and ${write} write errors`);
  if (result.bytes === 0) throw new Error(`${url}: no bytes received in ${seconds} s`);
  return result;
}

export function parseLoad(output: string): LoadResult {
  const line = /^zerosend-bench (\{.*\})$/m.exec(output)?.[1];
  if (line === undefined) throw new Error(`wrk printed no result line:\n${output.trim()}`);
  return JSON.parse(line) as LoadResult;
}
