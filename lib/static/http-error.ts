/** Errors that HTTP itself has a status for. */
import { STATUS_CODES } from 'node:http';

/** An error of HTTP without a code of our own, as Fastify's error handler likes them: its message is the status in words. */
export function httpError(status: number, headers?: Record<string, string>, cause?: unknown): Error {
  const error = new Error(STATUS_CODES[status], cause === undefined ? undefined : { cause });
  return Object.assign(error, { statusCode: status }, headers === undefined ? undefined : { headers });
}
