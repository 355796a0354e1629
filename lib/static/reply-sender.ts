/**
 * Sends a file as a Fastify reply: headers, then the body, either with one native call or as a stream.
 *
 * A plain GET of a small file takes two native calls: the response of the site, and sending head and body.
 */
import { type Stats, statSync } from 'node:fs';

import type { FastifyReply, FastifyRequest } from 'fastify';

import { directHeaders } from '../node/fastify-internals.js';
import { isPlainResponse } from '../node/node-internals.js';
import { FileBody } from '../runtime/body.js';
import { keepPending, staticEngine } from '../runtime/engine.js';
import { keepHalfOpen } from '../runtime/half-open.js';
import { lingerOnClose } from '../runtime/linger.js';
import { IS_LINUX } from '../runtime/platform.js';
import { sendPlainBody } from '../runtime/response.js';
import type { ResponseMethod } from '../types/method.js';
import type { ZerosendError } from '../util/errors.js';
import { varyWithEncoding } from './conditions.js';
import type { FastifyStaticOptions } from './options.js';
import type { Answer } from './site.js';
import type { Statistics } from './statistics.js';

export class ReplySender {
  readonly #setHeaders: FastifyStaticOptions['setHeaders'];
  readonly #statistics: Statistics;

  constructor(setHeaders: FastifyStaticOptions['setHeaders'], statistics: Statistics) {
    this.#setHeaders = setHeaders;
    this.#statistics = statistics;
  }

  /**
   * Sends the file of `answer`. `transfer` is the handle of its transfer, 0 for an empty body, or the number of the pending
   * response. `stats` are for `setHeaders`; if they are missing, they are read synchronously.
   */
  send(
    reply: FastifyReply,
    answer: Answer,
    transfer: number,
    stats: Stats | undefined,
    highWaterMark: number | undefined,
  ): void {
    if (reply.statusCode === 200 && answer.status !== 200) reply.code(answer.status);
    const list = answer.headers;
    let headers = directHeaders(reply);
    if (headers === undefined) {
      for (let at = 0; at < list.length; at += 2) reply.header(list[at] as string, list[at + 1]);
    } else {
      for (let at = 0; at < list.length; at += 2) headers[list[at] as string] = list[at + 1];
    }
    if (this.#setHeaders !== undefined) {
      // The callback may cause another request to the engine.
      transfer = keepPending(transfer);
      try {
        this.#setHeaders(reply, answer.file, stats ?? statSync(answer.file));
      } catch (error) {
        staticEngine().release(transfer);
        throw error;
      }
      // These two describe the bytes that are sent, whatever the callback has set.
      if (answer.encoding !== undefined) {
        for (let at = 0; at < list.length; at += 2) {
          const name = list[at] as string;
          if (name === 'content-type' || name === 'content-encoding') reply.header(name, list[at + 1]);
        }
      }
      // The callback may have added a trailer.
      if (headers !== undefined) headers = directHeaders(reply);
    }
    if (answer.varies) reply.header('vary', varyWithEncoding(reply.getHeader('vary')));
    if (headers !== undefined && (IS_LINUX || answer.length === 0) && isPlainResponse(reply.raw)) {
      this.#sendDirectly(reply, answer, headers as Record<string, string>, transfer);
    } else {
      reply.send(this.#body(reply, answer, keepPending(transfer), highWaterMark));
    }
  }

  /** Sends head and body without Fastify's `reply.send` and Node's streams. */
  #sendDirectly(reply: FastifyReply, answer: Answer, headers: Record<string, string>, transfer: number): void {
    const { raw } = reply;
    try {
      raw.writeHead(raw.statusCode, headers);
    } catch (error) {
      staticEngine().release(transfer);
      throw error;
    }
    if (answer.length === 0) {
      this.#record(reply, answer, 'none', false);
      raw.end();
      return;
    }
    const sent = sendPlainBody(raw, transfer, answer.length, (error, method) => {
      this.#record(reply, answer, method ?? 'none', error !== undefined);
      if (error !== undefined) logFailure(reply.log, error, answer.file);
    });
    // The head does not match the body: the application has changed the length, for example.
    if (!sent) {
      const body = this.#body(reply, answer, keepPending(transfer), undefined);
      // If a part was sent, the body has aborted the response already.
      body.once('error', (error) => {
        logFailure(reply.log, error as ZerosendError, answer.file);
        raw.destroy();
      });
      raw.once('close', () => body.destroy());
      body.pipe(raw);
    }
  }

  #body(reply: FastifyReply, answer: Answer, transfer: number, highWaterMark: number | undefined): FileBody {
    reply.zerosendMethod = transfer === 0 ? 'none' : 'stream';
    const onSent = (method: ResponseMethod, aborted: boolean) => this.#record(reply, answer, method, aborted);
    // As in @fastify/send, an invalid value means the default.
    const isValid = Number.isSafeInteger(highWaterMark) && (highWaterMark as number) > 0;
    const body = new FileBody(transfer, answer.length, answer.file, {
      highWaterMark: isValid ? highWaterMark : undefined,
      onSent,
    });
    // Asynchronous hooks may run before it is piped.
    lingerOnClose(reply.raw.req?.socket);
    body.once('close', keepHalfOpen(reply.raw, 'lookups'));
    return body;
  }

  #record(reply: FastifyReply, answer: Answer, method: ResponseMethod, aborted: boolean): void {
    reply.zerosendMethod = method;
    this.#statistics.count(method, answer.length, aborted);
  }
}

function logFailure(log: FastifyRequest['log'], error: ZerosendError, file: string): void {
  const peerIsGone = error.code === 'EPIPE' || error.code === 'ECONNRESET' || error.code === 'ERR_ZEROSEND_CLOSED';
  if (peerIsGone) log.info({ err: error }, 'the client closed the connection');
  else log.error({ err: error, file }, 'the connection was closed in the middle of a response');
}
