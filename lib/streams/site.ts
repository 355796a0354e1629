/**
 * Resolves a request to a file and a response. The counterpart of `crates/http/src/site/resolver.rs` and
 * `crates/core/src/static_site/site.rs`; a test compares the two.
 *
 * 1. check the path
 * 2. dot files
 * 3. in each root: precompressed variants, the file, extensions or index
 * 4. plan the response
 *
 * Unlike in Rust, the root directory is not held open.
 */
import type { RequestConditions, SiteSettings } from '#native';
import { ContentTags } from './content-tag.js';
import { preferences, SUFFIXES } from './negotiation.js';
import { close } from './open-file.js';
import { decode, type PathError, RequestPath } from './path.js';
import { type Found, plan, type Response } from './plan.js';
import type { Root } from './root.js';
import { readSettings, type SiteOptions } from './settings.js';
import { refusedOnWindows } from './windows.js';

/** A request. */
export interface Request {
  /** The path relative to the roots. */
  path: string;
  /** The path is percent-encoded, from a request target without the query. Otherwise it comes from code: `sendFile(name)`. */
  encoded: boolean;
  /** The request method is HEAD. */
  headOnly: boolean;
  /** The first root to search. */
  rootIndex: number;
  conditions: RequestConditions;
}

/** The result for a request. The file of a response is open; the caller must close it. */
export type Outcome =
  | ({ kind: 'response'; found: Found; rootIndex: number } & Response)
  | { kind: 'redirect' | 'not-found' | 'bad-path' }
  | { kind: 'forbidden'; reason: string }
  /** A directory without an index. `status` is the status if it is not listed. */
  | { kind: 'directory'; path: string; rootIndex: number; status: number };

/** The result of the search in one root. */
type Step = { kind: 'found'; found: Found } | { kind: 'directory' | 'missing' } | { kind: 'stop'; outcome: Outcome };

const MISSING: Step = { kind: 'missing' };

export class Site {
  readonly #roots: Root[];
  readonly #options: SiteOptions;
  readonly #tags = new ContentTags();

  /** Checks the settings. The roots need not exist yet. */
  constructor(settings: SiteSettings) {
    const { roots, options } = readSettings(settings);
    this.#roots = roots;
    this.#options = options;
  }

  /** Resolves a request. Throws errors of the server (`EMFILE`, `EIO`, an unreadable file), which become 500. */
  async respond(request: Request): Promise<Outcome> {
    const { dotfiles, pathRules, fallback, listing } = this.#options;
    const path = request.encoded ? decode(request.path, pathRules) : RequestPath.from(request.path);
    if (typeof path === 'string') return this.#refuse(path, request);
    if (dotfiles !== 'allow' && path.hasDotfile) {
      return dotfiles === 'deny' ? { kind: 'forbidden', reason: 'dot file' } : { kind: 'not-found' };
    }
    const odd = process.platform === 'win32' ? refusedOnWindows(path.relative) : undefined;
    if (odd !== undefined) return { kind: 'forbidden', reason: odd };
    const outcome = await this.#find(path, request);
    const missing = outcome.kind === 'not-found' || (outcome.kind === 'directory' && !listing);
    if (!missing || fallback === undefined || path.hasExtension) return outcome;
    const replacement = await this.#find(RequestPath.from(fallback) as RequestPath, request);
    return replacement.kind === 'directory' || replacement.kind === 'not-found' ? outcome : replacement;
  }

  async #find(path: RequestPath, request: Request): Promise<Outcome> {
    let directory: number | undefined;
    for (let rootIndex = request.rootIndex; rootIndex < this.#roots.length; rootIndex += 1) {
      const step = await new Search(this.#options, this.#roots[rootIndex] as Root, request).path(path);
      if (step.kind === 'found') return await this.#plan(step.found, rootIndex, request);
      if (step.kind === 'stop') return step.outcome;
      if (step.kind === 'directory') directory ??= rootIndex;
    }
    if (directory === undefined) return { kind: 'not-found' };
    const status = this.#options.index.length === 0 && path.wantsDirectory ? 403 : 404;
    return { kind: 'directory', path: path.relative, rootIndex: directory, status };
  }

  async #plan(found: Found, rootIndex: number, request: Request): Promise<Outcome> {
    const { contentTags, etag } = this.#options;
    try {
      const tag =
        contentTags && etag && request.conditions.etag === undefined ? await this.#tags.of(found.file) : undefined;
      const response = plan(found, tag, request.headOnly, request.conditions, this.#options);
      return { kind: 'response', found, rootIndex, ...response };
    } catch (error) {
      close(found.file.handle);
      throw error;
    }
  }

  #refuse(error: PathError, request: Request): Outcome {
    if (error === 'path too long') return tooLong(this.#options, request);
    const isBad = error === 'malformed percent escape in path' || (error === 'NUL in path' && !request.encoded);
    return isBad ? { kind: 'bad-path' } : { kind: 'forbidden', reason: error };
  }
}

/** 403 as in `@fastify/static` for requests, 404 as in `@fastify/send` for `sendFile`. */
function tooLong({ conformance }: SiteOptions, { encoded }: Request): Outcome {
  return conformance === 'fastify-static' && encoded
    ? { kind: 'forbidden', reason: 'path too long' }
    : { kind: 'not-found' };
}

/** Searches one root for one request. */
class Search {
  readonly #options: SiteOptions;
  readonly #root: Root;
  readonly #request: Request;

  constructor(options: SiteOptions, root: Root, request: Request) {
    this.#options = options;
    this.#root = root;
    this.#request = request;
  }

  async path(path: RequestPath): Promise<Step> {
    const { relative } = path;
    if (path.wantsDirectory) {
      const step = await this.#index(relative);
      return step.kind === 'missing' ? await this.#directory(relative) : step;
    }
    const step = await this.#name(relative);
    if (step.kind === 'directory') {
      if (this.#options.listing) return step;
      if (this.#options.redirect) return { kind: 'stop', outcome: { kind: 'redirect' } };
      const index = await this.#index(relative);
      return index.kind === 'missing' ? step : index;
    }
    return step.kind === 'missing' && relative !== '' && !path.hasExtension ? await this.#extensions(relative) : step;
  }

  async #index(directory: string): Promise<Step> {
    for (const name of this.#options.index) {
      const step = await this.#name(directory === '' ? name : `${directory}/${name}`);
      if (step.kind !== 'missing' && step.kind !== 'directory') return step;
    }
    return MISSING;
  }

  async #extensions(base: string): Promise<Step> {
    for (const extension of this.#options.extensions) {
      const step = await this.#plain(`${base}.${extension}`);
      if (step.kind !== 'missing' && step.kind !== 'directory') return step;
    }
    return MISSING;
  }

  /** A path with a trailing slash can only be a directory. */
  async #directory(relative: string): Promise<Step> {
    const step = await this.#plain(relative);
    if (step.kind !== 'found') return step;
    close(step.found.file.handle);
    return MISSING;
  }

  /** The precompressed file in a coding that the client accepts, or the file itself. */
  async #name(path: string): Promise<Step> {
    const { preCompressed, conformance } = this.#options;
    const { acceptEncoding } = this.#request.conditions;
    if (acceptEncoding !== undefined && path !== '') {
      for (const encoding of preferences(acceptEncoding, preCompressed, conformance)) {
        const variant = path + SUFFIXES[encoding];
        const lookup = await this.#root.open(variant);
        // A variant that cannot be opened is skipped.
        if (lookup.kind === 'file') {
          return { kind: 'found', found: { file: lookup.file, path: variant, encoding } };
        }
      }
    }
    return await this.#plain(path);
  }

  async #plain(path: string): Promise<Step> {
    const lookup = await this.#root.open(path);
    const stop = (reason: string): Step => ({ kind: 'stop', outcome: { kind: 'forbidden', reason } });
    switch (lookup.kind) {
      case 'file':
        return { kind: 'found', found: { file: lookup.file, path, encoding: undefined } };
      case 'directory':
        return { kind: 'directory' };
      case 'missing':
        return MISSING;
      case 'too-long':
        return { kind: 'stop', outcome: tooLong(this.#options, this.#request) };
      case 'refused':
        return stop('symbolic link refused');
      case 'denied': {
        // `@fastify/static` answers 500 for an unreadable file, and 403 for a file in an unreadable directory.
        const forbidden = this.#options.conformance === 'rfc9110' || (!lookup.fileExists && this.#request.encoded);
        if (!forbidden) throw lookup.error;
        return stop('permission denied');
      }
    }
  }
}
