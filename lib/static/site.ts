/** Sites: roots and options that are open in the engine, and requests to them. */
import { join } from 'node:path';

import type { RequestConditions, SiteAnswer } from '#native';
import { request, staticEngine } from '../runtime/engine.js';
import type { SiteOptions } from './site-options.js';
import { siteSettings } from './site-settings.js';

/** An answer of a site. The same object for the same version of a file, as long as it is hot. */
export interface Answer extends SiteAnswer {
  /** The absolute path of the file or directory; empty when there is none. */
  readonly file: string;
  /** The answer depends on `Accept-Encoding`; `headers` leaves that to be merged into what `Vary` says already. */
  readonly varies: boolean;
}

// A site that nobody holds any more must not stay open in the engine.
const abandoned = new FinalizationRegistry<number>((token) => staticEngine().release(token));

/** A site in the engine. */
export class Site {
  /** Answers remembered at most; beyond it all are forgotten at once. */
  static readonly #MOST = 4096;
  readonly token: number;
  readonly roots: readonly string[];
  readonly options: SiteOptions;
  /** Its answers depend on `Accept-Encoding`. */
  readonly negotiates: boolean;
  readonly #answers = new Map<number, Answer>();
  readonly #listing: boolean;
  #parts: Site[] | undefined;
  #users = 0;
  #closed = false;

  /** @param listing directories are to be listed: without a slash they are found as directories, whatever index they have. */
  constructor(roots: string[], options: SiteOptions, listing = false) {
    const settings = siteSettings(roots, options, listing);
    this.roots = roots;
    this.options = options;
    this.#listing = listing;
    this.negotiates = settings.preCompressed.length > 0;
    this.token = staticEngine().openSite(settings);
    abandoned.register(this, this.token, this);
  }

  /** Closes it after its last user; requests under way still end. */
  close(): void {
    this.#closed = true;
    if (this.#users === 0) this.#release();
  }

  /** Keeps it open, though it is closed meanwhile, until the returned function is called once. */
  use(): () => void {
    this.#users += 1;
    return () => {
      this.#users -= 1;
      if (this.#closed && this.#users === 0) this.#release();
    };
  }

  /**
   * A site for each of its roots, in order and without the fallback, which is no root's own; then itself if it has one. They
   * close with it.
   */
  parts(): readonly Site[] {
    const { fallback, ...options } = this.options;
    this.#parts ??= this.roots.map((root) => new Site([root], options, this.#listing));
    return fallback === undefined ? this.#parts : [...this.#parts, this];
  }

  #release(): void {
    abandoned.unregister(this);
    staticEngine().release(this.token);
    for (const part of this.#parts ?? []) part.close();
  }

  /**
   * The response to a request, or `undefined` when the disk has to be read: see {@link Site.respondLater}. It is the engine's
   * pending response, under `number` (see `nextPending`): start it, keep it or release it before the next request.
   */
  respond(
    number: number,
    path: string,
    encoded: boolean,
    headOnly: boolean,
    conditions: RequestConditions | undefined,
  ): Answer | undefined {
    const id = staticEngine().respond(number, this.token, path, encoded, headOnly, 0, conditions);
    if (id < 0) return undefined;
    if (id === 0) return this.#complete(staticEngine().describePending(number));
    let answer = this.#answers.get(id);
    if (answer === undefined) {
      answer = this.#complete(staticEngine().describePending(number));
      if (this.#answers.size >= Site.#MOST) this.#answers.clear();
      this.#answers.set(id, answer);
    }
    return answer;
  }

  /** The answer to a request and the token of its transfer (0: no bytes), without keeping the event loop waiting for a disk. */
  async respondLater(
    path: string,
    encoded: boolean,
    headOnly: boolean,
    conditions: RequestConditions | undefined,
  ): Promise<{ answer: Answer; token: number }> {
    const { value, handle = 0 } = await request((number) =>
      staticEngine().respondLater(number, this.token, path, encoded, headOnly, 0, conditions),
    );
    return { answer: this.#complete(value as SiteAnswer), token: handle };
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
