/** Replies with directory listings. */
import path from 'node:path';

import type { FastifyReply } from 'fastify';

import { staticEngine } from '../runtime/engine.js';
import { openDirectory } from './directory.js';
import { FST_STATIC_INVALID_OPTION_VALUE } from './errors.js';
import type { FileRequest } from './file-request.js';
import { asJson, isListName, type Listing, type ListOptionsJsonFormat, listDirectory, withLinks } from './list.js';
import { decodePath } from './paths.js';
import type { Answer, Site } from './site.js';

/**
 * Replies with the listing of the directory that a request names. Returns false if it names none, and nothing was sent. `answer`
 * is a directory, or not found.
 */
export async function sendListing(
  reply: FastifyReply,
  site: Site,
  request: FileRequest,
  answer: Answer,
  prefix: string,
  options: ListOptionsJsonFormat,
): Promise<boolean> {
  const pathname = request.encoded ? (decodePath(request.pathname) ?? '/') : request.pathname;
  const hasSlash = pathname.endsWith('/');
  // A directory is listed under its own path if it has no slash, or if the option `index` is false.
  const isDirectory = answer.kind === 'directory' && (!hasSlash || answer.status === 403);
  if (!isDirectory && !isListName(pathname, options)) return false;
  let directory = answer.path;
  if (answer.kind !== 'directory') {
    const parent = hasSlash ? pathname : path.posix.join(path.posix.dirname(pathname), '/');
    const found = await findDirectory(site, parent);
    if (found === undefined) {
      reply.callNotFound();
      return true;
    }
    directory = found;
  }
  const format = (reply.request.query as { format?: unknown } | undefined)?.format;
  if (format === 'html' && typeof options.render !== 'function') {
    const allowed = 'must be a function and is required with the URL parameter `format=html`';
    throw new FST_STATIC_INVALID_OPTION_VALUE('list.render', allowed);
  }
  const listing = await list(site, directory, options).catch(() => undefined);
  if (listing === undefined) {
    reply.callNotFound();
  } else if ((format || options.format) === 'html' && options.render !== undefined) {
    const { dirs, files } = withLinks(listing, pathname, prefix, options);
    reply.type('text/html').send(options.render(dirs, files));
  } else {
    reply.send(asJson(listing, options));
  }
  return true;
}

/**
 * The directory, relative to its root, at a path with a trailing slash, whether or not it has an index. Found by the engine, so
 * that the rules of the site apply.
 */
async function findDirectory(site: Site, pathname: string): Promise<string | undefined> {
  const { answer, transfer } = await site.respondLater(pathname, false, true, undefined);
  if (transfer !== 0) staticEngine().release(transfer);
  if (answer.kind === 'directory') return answer.path;
  return answer.kind === 'response' ? pathname.replace(/^\/+|\/+$/g, '') : undefined;
}

/** The content of the directory at `relative`. Sites with lists have a single root. */
async function list(site: Site, relative: string, options: ListOptionsJsonFormat): Promise<Listing> {
  const directory = await openDirectory(site, 0, relative);
  try {
    return await listDirectory(directory, options);
  } finally {
    await directory.close();
  }
}
