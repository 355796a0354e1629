/** The options of the plugin, which are checked when the plugin is registered. */
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

/** A directory: an absolute path or a `file:` URL; of several, the first that contains the file is used. */
export type Root = string | URL | (string | URL)[];

/** Options of a registration, or of a single response. */
export interface SendOptions extends Omit<SiteOptions, 'redirect' | 'preCompressed' | 'fallback'> {
  /**
   * Called with the file before the response is sent; awaited. An error is handled like an error of the route.
   */
  onFile?: ((path: string, stat: Stats) => void | Promise<void>) | undefined;
  /** Serve dot files with `wildcard: false`. Default false. */
  serveDotFiles?: boolean | undefined;
}

/** Options of a single response: `reply.sendFile`, `reply.download`. */
export interface ReplyOptions extends SendOptions, SliceOptions {
  /** The root. Default: that of the registration. */
  root?: Root | undefined;
  /** Size of the reads in bytes if the body is sent as a stream. Default 64 KiB. */
  highWaterMark?: number | undefined;
}

/** Options of the plugin: those of `@fastify/static` 10 and those of {@link SiteOptions}. */
export interface FastifyStaticOptions
  extends SendOptions,
    Pick<SiteOptions, 'redirect' | 'preCompressed' | 'fallback'>,
    Omit<RegisterOptions, 'prefix' | 'logLevel'> {
  /** The directory to serve. Required unless `serve` is false. */
  root?: Root | undefined;
  /** Add routes. False: only the decorators. Default true. */
  serve?: boolean | undefined;
  /** The URL path of the files; may contain parameters (`/:tenant/files`). Default `'/'`. */
  prefix?: string;
  /** Do not add a trailing slash to the prefix. Default false. */
  prefixAvoidTrailingSlash?: boolean | undefined;
  /** Add `reply.sendFile` and `reply.download`. Must be false for a second registration. Default true. */
  decorateReply?: boolean | undefined;
  /** Hide the routes from documentation generated from schemas. Default true. */
  schemaHide?: boolean | undefined;
  /** Called with the absolute path of the file for each response with a file (200, 206, 304), to modify its headers. */
  setHeaders?: ((reply: FastifyReply, path: string, stat: Stats) => void) | undefined;
  /** True: one route for all paths below the prefix. False: a route for each file that exists at the start. Default true. */
  wildcard?: boolean | undefined;
  /** Glob patterns of files without a route, with `wildcard: false`. Default none. */
  globIgnore?: string | string[] | undefined;
  /** Send directory listings. Not supported with several roots. Default false. */
  list?: boolean | ListOptionsJsonFormat | ListOptionsHtmlFormat | undefined;
  /**
   * Return false for 404; a promise is awaited. Called with the path of the request, and again with the path of the file if that
   * differs (an index, an extension, a fallback); with several roots, for each root.
   */
  allowedPath?:
    | ((pathName: string, root: string | undefined, request: FastifyRequest) => boolean | Promise<boolean>)
    | undefined;
  /** Do not log a warning if a root does not exist. Default false. */
  suppressWarning?: boolean | undefined;
  constraints?: RouteOptions['constraints'] | undefined;
  logLevel?: NonNullable<RouteOptions['logLevel']>;
}

/** Checks the options that the engine does not check. Returns the roots, if there are any. */
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

/** The path of a `file:` URL; other values are returned unchanged. */
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
