/** Writes natively answered requests to the logger of a Fastify application. */
import type { FastifyInstance } from 'fastify';
import type { AccessLogEntry } from '#native';

/**
 * Writes lines as Fastify does. The objects resemble Fastify's requests and replies, so that the serializers of the application
 * can be used.
 */
export function writeRequestLog(app: FastifyInstance, entries: readonly AccessLogEntry[]): void {
  const label = (app.initialConfig as { requestIdLogLabel?: string }).requestIdLogLabel ?? 'reqId';
  const ids = app as unknown as { genReqId(raw: { method: string; url: string; headers: object }): string };
  for (const { method, url, host, remoteAddress, remotePort, statusCode, responseTime, aborted } of entries) {
    const headers = host === undefined ? {} : { host };
    const socket = { remoteAddress, remotePort };
    const req = {
      method,
      url,
      originalUrl: url,
      host,
      hostname: host,
      headers,
      ip: remoteAddress,
      socket,
      raw: { socket },
    };
    const line = { [label]: ids.genReqId({ method, url, headers }), req, res: { statusCode }, responseTime };
    app.log.info(aborted ? { ...line, aborted } : line, 'request completed');
  }
}
