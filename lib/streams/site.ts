/**
 * Roots and options: which file answers a request. The counterpart of `crates/http/src/site/resolver.rs` and
 * `crates/core/src/static_site/site.rs`; the comparison test holds them together.
 *
 * 1. check the path
 * 2. dot files
 * 3. in each root: coding variants, the file itself, extensions or index
 * 4. plan the response
 *
 * A root is not held open, so there is no looking whether it was replaced.
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

/** One request. */
export interface Request {
  /** The path below the roots. */
  path: string;
  /** It comes from a request target: percent-encoded, without the query. Otherwise from code: `sendFile(name)`. */
  encoded: boolean;
  /** HEAD: the same headers, no body. */
  headOnly: boolean;
  /** The root to begin with. */
  rootIndex: number;
  conditions: RequestConditions;
}

/** The answer to a request. Of a response the file is open, and whoever has the answer closes it. */
export type Outcome =
  | ({ kind: 'response'; found: Found; rootIndex: number } & Response)
  | { kind: 'redirect' | 'not-found' | 'bad-path' }
  | { kind: 'forbidden'; reason: string }
  /** A directory without an index. The status is that without a listing. */
  | { kind: 'directory'; path: string; rootIndex: number; status: number };

/** What one root has. */
type Step = { kind: 'found'; found: Found } | { kind: 'directory' | 'missing' } | { kind: 'stop'; outcome: Outcome };

const MISSING: Step = { kind: 'missing' };

export class Site {
  readonly #roots: Root[];
  readonly #options: SiteOptions;
  readonly #tags = new ContentTags();

  /** Checks the settings. A root need not exist yet. */
  constructor(settings: SiteSettings) {
    const { roots, options } = readSettings(settings);
    this.#roots = roots;
    this.#options = options;
  }

  /** Answers a request. An error is the server's own trouble (`EMFILE`, `EIO`, an unreadable file): a 500. */
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
    const instead = await this.#find(RequestPath.from(fallback) as RequestPath, request);
    return instead.kind === 'directory' || instead.kind === 'not-found' ? outcome : instead;
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

/** `@fastify/static` cannot verify the spelling of a name that is too long, hence 403; `send` alone says 404. */
function tooLong({ conformance }: SiteOptions, { encoded }: Request): Outcome {
  return conformance === 'fastify-static' && encoded
    ? { kind: 'forbidden', reason: 'path too long' }
    : { kind: 'not-found' };
}

/** The search for one request in one root. */
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

  /** A path with its slash names a directory or nothing. */
  async #directory(relative: string): Promise<Step> {
    const step = await this.#plain(relative);
    if (step.kind !== 'found') return step;
    close(step.found.file.handle);
    return MISSING;
  }

  /** The file in a coding the client takes, else the plain file. */
  async #name(path: string): Promise<Step> {
    const { preCompressed, conformance } = this.#options;
    const { acceptEncoding } = this.#request.conditions;
    if (acceptEncoding !== undefined && path !== '') {
      for (const encoding of preferences(acceptEncoding, preCompressed, conformance)) {
        const variant = path + SUFFIXES[encoding];
        const lookup = await this.#root.open(variant);
        // A variant that cannot be read is no reason to withhold the plain file.
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
        // An unreadable file is an error of the server for `@fastify/static`, an unreadable directory "unverifiable".
        const forbidden = this.#options.conformance === 'rfc9110' || (!lookup.fileExists && this.#request.encoded);
        if (!forbidden) throw lookup.error;
        return stop('permission denied');
      }
    }
  }
}
