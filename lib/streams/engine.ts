/**
 * The engine for other platforms than Linux: the functions of the binding that static serving needs, in TypeScript. The
 * counterpart of `crates/node/src/site`.
 *
 * Every request reads the disk, so `respond` always defers to `respondLater`, and all bytes pass through a Node stream.
 */
import type { RequestConditions, SiteAnswer, SiteSettings } from '#native';
import type { NativeEvent, StaticEngine } from '../types/binding.js';
import { failure } from '../util/errors.js';
import { mergeVary } from './negotiation.js';
import { close } from './open-file.js';
import { lengthOf } from './plan.js';
import { type Outcome, Site } from './site.js';
import { Transfer } from './transfer.js';

export class PortableEngine implements StaticEngine {
  readonly mergeVary: typeof mergeVary = mergeVary;
  readonly #held = new Map<number, Site | Transfer>();
  readonly #tell: (event: NativeEvent) => void;
  #last = 0;

  /** @param tell hears of what was asked for later. */
  constructor(tell: (event: NativeEvent) => void) {
    this.#tell = tell;
  }

  openSite(settings: SiteSettings): number {
    return this.#hold(new Site(settings));
  }

  respond(site: number): number {
    this.#site(site);
    return -1;
  }

  describeCurrent(): SiteAnswer {
    throw failure('ERR_ZEROSEND_CLOSED', 'there is no answer to describe');
  }

  holdCurrent(): number {
    return 0;
  }

  respondLater(
    request: number,
    token: number,
    path: string,
    encoded: boolean,
    headOnly: boolean,
    rootIndex: number,
    conditions?: RequestConditions | null,
  ): void {
    this.#site(token)
      .respond({ path, encoded, headOnly, rootIndex, conditions: conditions ?? {} })
      .then(
        (outcome) => this.#tell({ request, ...this.#answer(outcome) }),
        (error: NodeJS.ErrnoException) => this.#tell({ request, error }),
      );
  }

  take(token: number, max: number): Buffer | null {
    return this.#transfer(token).take(max);
  }

  warm(token: number, request: number): void {
    void this.#transfer(token)
      .warm()
      .then(() => this.#tell({ request }));
  }

  remaining(token: number): number {
    const held = this.#held.get(token);
    return held instanceof Transfer ? held.remaining : 0;
  }

  release(token: number): void {
    const held = this.#held.get(token);
    this.#held.delete(token);
    if (held instanceof Transfer) held.close();
  }

  /** How many sites and transfers are held, for tests. */
  heldCount(): number {
    return this.#held.size;
  }

  #hold(held: Site | Transfer): number {
    this.#last += 1;
    this.#held.set(this.#last, held);
    return this.#last;
  }

  #site(token: number): Site {
    const held = this.#held.get(token);
    if (held instanceof Site) return held;
    throw failure('ERR_ZEROSEND_CLOSED', 'the site was released');
  }

  #transfer(token: number): Transfer {
    const held = this.#held.get(token);
    if (held instanceof Transfer) return held;
    throw failure('ERR_ZEROSEND_CLOSED', 'the transfer has ended or was released');
  }

  /** What there is to say, and the token of the transfer when there are bytes to send. */
  #answer(outcome: Outcome): { answer: SiteAnswer; token?: number } {
    const empty = { status: 0, headers: [], length: 0, path: '', rootIndex: 0 };
    if (outcome.kind !== 'response') return { answer: { ...empty, ...outcome } };
    const { kind, status, headers, body, rootIndex, found } = outcome;
    const length = lengthOf(body);
    const answer: SiteAnswer = { kind, status, headers, length, path: found.path, rootIndex };
    if (found.encoding !== undefined) answer.encoding = found.encoding;
    if (length > 0) return { answer, token: this.#hold(new Transfer(found.file.handle, body)) };
    close(found.file.handle);
    return { answer };
  }
}
