/** The options of the plugin: types and checks. Each is checked once, when the plugin is registered. */
import { type Stats, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import type { FastifyInstance, FastifyReply, FastifyRequest, RegisterOptions, RouteOptions } from 'fastify';

import {
  FST_STATIC_INVALID_OPTION,
  FST_STATIC_INVALID_OPTION_VALUE,
  FST_STATIC_MULTIROOT_LIST_CONFLICT,
} from './errors.js';
import type { ListOptionsHtmlFormat, ListOptionsJsonFormat } from './list.js';
import type { SliceOptions } from './overrides.js';
import type { SiteOptions } from './site-options.js';

/** A directory: an absolute path or a `file:` URL; of several, the first that has the file. */
export type Root = string | URL | (string | URL)[];

/** What a registration and a single response can have. */
export interface SendOptions extends Omit<SiteOptions, 'redirect' | 'preCompressed' | 'fallback'> {
  /**
   * Called with the file that was found before anything is decided about it; awaited. What it throws is the answer, as
   * an error of the route.
   */
  onFile?: ((path: string, stat: Stats) => void | Promise<void>) | undefined;
  /** Dot files with `wildcard: false`. Default false. */
  serveDotFiles?: boolean | undefined;
}

/** What a single response can have: `reply.sendFile`, `reply.download`. */
export interface ReplyOptions extends SendOptions, SliceOptions {
  /** The root, instead of the registration's. */
  root?: Root | undefined;
  /** Bytes read at once where the body is a stream. Default 64 KiB. */
  highWaterMark?: number | undefined;
}

/** Options of the plugin: those of `@fastify/static` 10, and those of {@link SiteOptions} that go beyond it. */
export interface FastifyStaticOptions
  extends SendOptions,
    Pick<SiteOptions, 'redirect' | 'preCompressed' | 'fallback'>,
    Omit<RegisterOptions, 'prefix' | 'logLevel'> {
  /** The directory to serve. Required unless `serve` is false. */
  root?: Root | undefined;
  /** False: only the decorators. Default true. */
  serve?: boolean | undefined;
  /** Where the files appear; may have parameters (`/:tenant/files`). Default `'/'`. */
  prefix?: string;
  /** Do not add a slash to the prefix. Default false. */
  prefixAvoidTrailingSlash?: boolean | undefined;
  /** Add `reply.sendFile` and `reply.download`. False for a second registration. Default true. */
  decorateReply?: boolean | undefined;
  /** Hide the routes from schema based documentation. Default true. */
  schemaHide?: boolean | undefined;
  /** Has the last word on the headers. Called with the file's absolute path for every response that has one: 200, 206, 304. */
  setHeaders?: ((reply: FastifyReply, path: string, stat: Stats) => void) | undefined;
  /** True: one route for every path below the prefix. False: a route for each file that is there at the start. Default true. */
  wildcard?: boolean | undefined;
  /** Globs of files that get no route with `wildcard: false`. Default none. */
  globIgnore?: string | string[] | undefined;
  /** Answer for directories with a list of what is in them. Not with several roots. Default false. */
  list?: boolean | ListOptionsJsonFormat | ListOptionsHtmlFormat | undefined;
  /**
   * False makes it 404; a promise is awaited. Asked for the path of the request, and again for the path of the file when that
   * is another (an index, an extension, a fallback); of several roots, for each in turn.
   */
  allowedPath?:
    | ((pathName: string, root: string | undefined, request: FastifyRequest) => boolean | Promise<boolean>)
    | undefined;
  /** No warning about a root that does not exist. Default false. */
  suppressWarning?: boolean | undefined;
  constraints?: RouteOptions['constraints'] | undefined;
  logLevel?: NonNullable<RouteOptions['logLevel']>;
}

/** Checks everything that the engine does not check; gives the roots, of which there may be none. */
export function checkOptions(fastify: FastifyInstance, options: FastifyStaticOptions): string[] | undefined {
  const { serve, setHeaders, wildcard } = options;
  const roots = serve === false && options.root === undefined ? undefined : checkRoots(fastify, options);
  mustBeFunction('setHeaders', setHeaders);
  mustBeFunction('allowedPath', options.allowedPath);
  mustBeFunction('onFile', options.onFile);
  checkList(options);
  if (serve !== false && wildcard && typeof wildcard !== 'boolean') {
    throw new FST_STATIC_INVALID_OPTION_VALUE('wildcard', 'must be a boolean');
  }
  return roots;
}

function mustBeFunction(name: string, value: unknown): void {
  if (value !== undefined && typeof value !== 'function') {
    throw new FST_STATIC_INVALID_OPTION_VALUE(name, 'must be a function');
  }
}

function checkRoots(fastify: FastifyInstance, options: FastifyStaticOptions): string[] {
  const { root } = options;
  if (root === undefined) throw new FST_STATIC_INVALID_OPTION('root', 'is required');
  if (!Array.isArray(root)) return [checkRoot(fastify, root, options)];
  if (root.length === 0) throw new FST_STATIC_INVALID_OPTION('root', 'array requires one or more paths');
  const paths = root.map(rootPath);
  if (new Set(paths).size !== paths.length) {
    throw new FST_STATIC_INVALID_OPTION('root', 'array contains duplicate paths');
  }
  return root.map((entry) => checkRoot(fastify, entry, options));
}

function checkRoot(fastify: FastifyInstance, given: string | URL, options: FastifyStaticOptions): string {
  const root = rootPath(given);
  if (typeof root !== 'string') {
    const allowed = Array.isArray(options.root) ? 'must be a string' : 'must be a string or array of strings';
    throw new FST_STATIC_INVALID_OPTION_VALUE('root', allowed);
  }
  if (!path.isAbsolute(root)) throw new FST_STATIC_INVALID_OPTION('root', 'must be an absolute path');
  const stat = statSync(root, { throwIfNoEntry: false });
  if (stat === undefined) {
    if (!options.suppressWarning) fastify.log.warn(`"root" path "${root}" must exist`);
  } else if (!stat.isDirectory()) {
    throw new FST_STATIC_INVALID_OPTION('root', 'must be a directory');
  }
  return root;
}

/** A `file:` URL as a path; everything else as it is. */
export function rootPath(root: string | URL): string {
  return root instanceof URL && root.protocol === 'file:' ? fileURLToPath(root) : (root as string);
}

function checkList(options: FastifyStaticOptions): void {
  const { list } = options;
  if (!list) return;
  if (Array.isArray(options.root)) throw new FST_STATIC_MULTIROOT_LIST_CONFLICT();
  if (list === true) return;
  const wrong = (name: string, allowed: string) => new FST_STATIC_INVALID_OPTION_VALUE(`list.${name}`, allowed);
  if (list.format && list.format !== 'json' && list.format !== 'html') throw wrong('format', 'must be json or html');
  if (list.names && !Array.isArray(list.names)) throw wrong('names', 'must be an array');
  if (list.jsonFormat != null && list.jsonFormat !== 'names' && list.jsonFormat !== 'extended') {
    throw wrong('jsonFormat', 'must be names or extended');
  }
  if (list.format === 'html' && typeof list.render !== 'function') {
    throw wrong('render', 'must be a function and is required with html format');
  }
}
