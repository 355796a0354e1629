/**
 * Static serving for platforms without the native binding: the functions that sites and bodies call, in TypeScript. The
 * counterpart of `crates/node/src/site`.
 *
 * Every response needs the disk, so `respond` always returns -1, and every byte goes through a Node stream.
 */
import type { RequestConditions, SiteAnswer, SiteSettings } from '#native';
import type { NativeEvent, StaticEngine } from '../types/binding.js';
import { failure } from '../util/errors.js';
import { mergeVary } from './negotiation.js';
import { close } from './open-file.js';
import { lengthOf } from './plan.js';
import { type Outcome, Site } from './site.js';
import { Transfer } from './transfer.js';

export class StreamEngine implements StaticEngine {
  readonly mergeVary: typeof mergeVary = mergeVary;
  readonly #handles = new Map<number, Site | Transfer>();
  readonly #dispatch: (event: NativeEvent) => void;
  #last = 0;

  /** @param dispatch is called with the events of requests. */
  constructor(dispatch: (event: NativeEvent) => void) {
    this.#dispatch = dispatch;
  }

  openSite(settings: SiteSettings): number {
    return this.#register(new Site(settings));
  }

  respond(_number: number, site: number): number {
    this.#site(site);
    return -1;
  }

  describePending(): SiteAnswer {
    throw failure('ERR_ZEROSEND_INTERNAL', 'internal error, please report it: the pending response was requested');
  }

  keepPending(): number {
    return 0;
  }

  respondLater(
    request: number,
    site: number,
    path: string,
    encoded: boolean,
    headOnly: boolean,
    rootIndex: number,
    conditions?: RequestConditions | null,
  ): void {
    this.#site(site)
      .respond({ path, encoded, headOnly, rootIndex, conditions: conditions ?? {} })
      .then(
        (outcome) => this.#dispatch({ request, ...this.#answer(outcome) }),
        (error: NodeJS.ErrnoException) => this.#dispatch({ request, error }),
      );
  }

  take(handle: number, max: number): Buffer | null {
    return this.#transfer(handle).take(max);
  }

  prefetch(handle: number, request: number): void {
    void this.#transfer(handle)
      .prefetch()
      .then(() => this.#dispatch({ request }));
  }

  remaining(handle: number): number {
    const object = this.#handles.get(handle);
    return object instanceof Transfer ? object.remaining : 0;
  }

  release(handle: number): void {
    const object = this.#handles.get(handle);
    this.#handles.delete(handle);
    if (object instanceof Transfer) object.close();
  }

  /** Number of open sites and transfers, for tests. */
  liveHandles(): number {
    return this.#handles.size;
  }

  #register(object: Site | Transfer): number {
    this.#last += 1;
    this.#handles.set(this.#last, object);
    return this.#last;
  }

  #site(handle: number): Site {
    const object = this.#handles.get(handle);
    if (object instanceof Site) return object;
    throw failure('ERR_ZEROSEND_CLOSED', 'the site was released');
  }

  #transfer(handle: number): Transfer {
    const object = this.#handles.get(handle);
    if (object instanceof Transfer) return object;
    throw failure('ERR_ZEROSEND_CLOSED', 'the transfer has ended or was released');
  }

  /** The answer, and the handle of the transfer when there are bytes to send. */
  #answer(outcome: Outcome): { value: SiteAnswer; handle?: number } {
    const empty = { status: 0, headers: [], length: 0, path: '', rootIndex: 0 };
    if (outcome.kind !== 'response') return { value: { ...empty, ...outcome } };
    const { kind, status, headers, body, rootIndex, found } = outcome;
    const length = lengthOf(body);
    const answer: SiteAnswer = { kind, status, headers, length, path: found.path, rootIndex };
    if (found.encoding !== undefined) answer.encoding = found.encoding;
    if (length > 0) return { value: answer, handle: this.#register(new Transfer(found.file.handle, body)) };
    close(found.file.handle);
    return { value: answer };
  }
}
