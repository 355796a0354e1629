/** Sites: roots and options that are open in the engine, and requests to them. */
import { join } from 'node:path';

import type { RequestConditions, SiteAnswer } from '#native';
import { request, staticEngine } from '../runtime/engine.js';
import type { SiteOptions } from './site-options.js';
import { siteSettings } from './site-settings.js';

/** The answer of a site to a request. While a file is cached, requests for the same version of it get the same object. */
export interface Answer extends SiteAnswer {
  /** The absolute path of the file or directory; empty if there is none. */
  readonly file: string;
  /** The response depends on `Accept-Encoding`. `headers` does not contain `Vary`, which must be merged with existing values. */
  readonly varies: boolean;
}

const unreachable = new FinalizationRegistry<number>((handle) => staticEngine().release(handle));

export class Site {
  /** Maximum number of stored answers; all are removed when it is reached. */
  static readonly #MAX_ANSWERS = 4096;
  /** The handle of the site in the engine. */
  readonly handle: number;
  readonly roots: readonly string[];
  readonly options: SiteOptions;
  /** The answers depend on `Accept-Encoding`. */
  readonly negotiates: boolean;
  readonly #answers = new Map<number, Answer>();
  readonly #listing: boolean;
  #parts: Site[] | undefined;
  #users = 0;
  #closed = false;

  /** @param listing Directories may be listed: without a trailing slash, the answer is the directory, not its index. */
  constructor(roots: string[], options: SiteOptions, listing = false) {
    const settings = siteSettings(roots, options, listing);
    this.roots = roots;
    this.options = options;
    this.#listing = listing;
    this.negotiates = settings.preCompressed.length > 0;
    this.handle = staticEngine().openSite(settings);
    unreachable.register(this, this.handle, this);
  }

  /** Closes the site when it has no more users. Pending requests still complete. */
  close(): void {
    this.#closed = true;
    if (this.#users === 0) this.#release();
  }

  /** Keeps the site open until the returned function is called, even if `close` is called. */
  use(): () => void {
    this.#users += 1;
    return () => {
      this.#users -= 1;
      if (this.#closed && this.#users === 0) this.#release();
    };
  }

  /**
   * A site for each root, in order, without the fallback; then, if there is a fallback, the site itself. They are closed
   * together with the site.
   */
  parts(): readonly Site[] {
    const { fallback, ...options } = this.options;
    this.#parts ??= this.roots.map((root) => new Site([root], options, this.#listing));
    return fallback === undefined ? this.#parts : [...this.#parts, this];
  }

  #release(): void {
    unreachable.unregister(this);
    staticEngine().release(this.handle);
    for (const part of this.#parts ?? []) part.close();
  }

  /**
   * The answer to a request, or `undefined` if the disk must be read: see {@link Site.respondLater}. The answer is the pending
   * response of the engine with this number (see `nextPending`): it must be started, kept or released before the next request.
   */
  respond(
    pending: number,
    path: string,
    encoded: boolean,
    headOnly: boolean,
    conditions: RequestConditions | undefined,
  ): Answer | undefined {
    const id = staticEngine().respond(pending, this.handle, path, encoded, headOnly, 0, conditions);
    if (id < 0) return undefined;
    if (id === 0) return this.#complete(staticEngine().describePending(pending));
    let answer = this.#answers.get(id);
    if (answer === undefined) {
      answer = this.#complete(staticEngine().describePending(pending));
      if (this.#answers.size >= Site.#MAX_ANSWERS) this.#answers.clear();
      this.#answers.set(id, answer);
    }
    return answer;
  }

  /** The answer to a request and the handle of its transfer (0 for an empty body). Reads the disk on another thread. */
  async respondLater(
    path: string,
    encoded: boolean,
    headOnly: boolean,
    conditions: RequestConditions | undefined,
  ): Promise<{ answer: Answer; transfer: number }> {
    const { value, handle = 0 } = await request((number) =>
      staticEngine().respondLater(number, this.handle, path, encoded, headOnly, 0, conditions),
    );
    return { answer: this.#complete(value as SiteAnswer), transfer: handle };
  }

  #complete(answer: SiteAnswer): Answer {
    const { kind, path, rootIndex } = answer;
    const file = kind === 'response' || kind === 'directory' ? join(this.roots[rootIndex] as string, path) : '';
    const vary = this.negotiates ? answer.headers.indexOf('vary') : -1;
    return {
      ...answer,
      headers: vary < 0 ? answer.headers : answer.headers.filter((_, at) => at !== vary && at !== vary + 1),
      file,
      varies: vary >= 0,
    };
  }
}

/** The headers of an answer as an object. */
export function headersOf({ headers }: SiteAnswer): Record<string, string> {
  const object: Record<string, string> = {};
  for (let at = 0; at < headers.length; at += 2) object[headers[at] as string] = headers[at + 1] as string;
  return object;
}
