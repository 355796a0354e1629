/** Errors with an HTTP status. */
import { STATUS_CODES } from 'node:http';

/** An error for Fastify's error handler. Its message is the text of the status. */
export function httpError(status: number, headers?: Record<string, string>, cause?: unknown): Error {
  const error = new Error(STATUS_CODES[status], cause === undefined ? undefined : { cause });
  return Object.assign(error, { statusCode: status }, headers === undefined ? undefined : { headers });
}
