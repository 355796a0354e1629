/** Makes the same requests to the native engine and to the one in lib/streams. */

import type { RequestConditions, SiteAnswer, SiteSettings } from '#native';
import { engine, request } from '../../dist/lib/runtime/engine.js';
import { StreamEngine } from '../../dist/lib/streams/engine.js';
import type { NativeEvent, StaticEngine } from '../../dist/lib/types/binding.js';

export interface EngineRequest {
  path: string;
  /** The path is percent-encoded. Default true. */
  encoded?: boolean;
  headOnly?: boolean;
  /** `ETAG` and `DATE` in a value are replaced by the validators of the engine, `OPAQUE` by the tag without `W/`. */
  conditions?: RequestConditions;
}

type Comparable = Omit<SiteAnswer, 'headers'> & { headers: string };

/** The comparable result of an engine. */
export interface Outcome {
  answer?: Comparable;
  body?: string;
  error?: Record<string, unknown>;
}

interface Side {
  /** The values of `ETAG` and `DATE` by site and file. */
  validators: Map<string, { etag: string; date: string }>;
  engine: StaticEngine;
  request: (start: (number: number) => void) => Promise<NativeEvent>;
}

const waiting = new Map<number, (event: NativeEvent) => void>();
let lastRequest = 0;

const native: Side = { validators: new Map(), engine: engine(), request };
const portable: Side = {
  validators: new Map(),
  engine: new StreamEngine((event) => {
    waiting.get(event.request)?.(event);
    waiting.delete(event.request);
  }),
  request: (start) =>
    new Promise((resolve, reject) => {
      lastRequest += 1;
      waiting.set(lastRequest, (event) => (event.error === undefined ? resolve(event) : reject(event.error)));
      start(lastRequest);
    }),
};

/** A site in both engines. */
export class Both {
  readonly #sites: [number, number];
  readonly #overrides: RequestConditions | undefined;

  /** @param overrides Added to the conditions of each request. */
  constructor(settings: SiteSettings, overrides?: RequestConditions) {
    this.#overrides = overrides;
    this.#sites = [native.engine.openSite(settings), portable.engine.openSite(settings)];
  }

  /** The results of the native engine and of the other one. */
  async send(request: EngineRequest): Promise<[Outcome, Outcome]> {
    const conditions = { ...this.#overrides, ...request.conditions };
    const whole = { ...request, conditions };
    return await Promise.all([outcomeOf(native, this.#sites[0], whole), outcomeOf(portable, this.#sites[1], whole)]);
  }

  close(): void {
    native.engine.release(this.#sites[0]);
    portable.engine.release(this.#sites[1]);
  }
}

/** The errors of both engines for these settings, without stacks. */
export function settingsErrors(settings: SiteSettings): unknown[] {
  return [native, portable].map((side) => {
    try {
      side.engine.release(side.engine.openSite(settings));
      return 'no error';
    } catch (error) {
      return { message: (error as Error).message, ...(error as object) };
    }
  });
}

/** Number of open sites and transfers of the engine in lib/streams. */
export function liveHandles(): number {
  return (portable.engine as StreamEngine).liveHandles();
}

async function outcomeOf(side: Side, site: number, request: EngineRequest): Promise<Outcome> {
  try {
    const conditions = await withValidators(side, site, request);
    const { answer, token } = await answerOf(side, site, { ...request, conditions });
    const bytes = await bodyOf(side, token);
    return { answer: comparable(answer), body: withoutRandom(bytes.toString('latin1')) };
  } catch (error) {
    const { code, errno, syscall, path } = error as NodeJS.ErrnoException;
    // An exception other than an engine error fails the test.
    if (code === undefined) throw error;
    return { error: { code, errno, syscall, path } };
  }
}

/** The conditions with the validators of the engine. */
async function withValidators(side: Side, site: number, request: EngineRequest): Promise<RequestConditions> {
  const { conditions = {}, path, encoded } = request;
  if (!/ETAG|OPAQUE|DATE/.test(JSON.stringify(conditions))) return conditions;
  const { acceptEncoding, start, last, maxRangeLength, maxAge, etag: tag, lastModified } = conditions;
  const overrides = { acceptEncoding, start, last, maxRangeLength, maxAge, etag: tag, lastModified };
  const given = Object.entries(overrides).filter(([, value]) => value !== undefined);
  const plain: RequestConditions = Object.fromEntries(given);
  const whole = { path, headOnly: true, conditions: plain, ...(encoded === undefined ? {} : { encoded }) };
  const key = JSON.stringify([site, whole]);
  // Files do not change during the test.
  let validators = side.validators.get(key);
  if (validators === undefined) {
    const { answer } = await answerOf(side, site, whole);
    const value = (name: string) => answer.headers[answer.headers.indexOf(name) + 1] ?? '';
    validators = { etag: value('etag'), date: value('last-modified') };
    side.validators.set(key, validators);
  }
  const { etag, date } = validators;
  const fillIn = (text: string) =>
    text.replaceAll('ETAG', etag).replaceAll('OPAQUE', etag.replace('W/', '')).replaceAll('DATE', date);
  const filled = Object.entries(conditions).map(([name, value]) => [
    name,
    typeof value === 'string' ? fillIn(value) : value,
  ]);
  return Object.fromEntries(filled);
}

async function answerOf(
  { engine, request }: Side,
  site: number,
  { path, encoded = true, headOnly = false, conditions }: EngineRequest,
): Promise<{ answer: SiteAnswer; token: number }> {
  const event = await request((number) => engine.respondLater(number, site, path, encoded, headOnly, 0, conditions));
  return { answer: event.value as SiteAnswer, token: event.handle ?? 0 };
}

async function bodyOf({ engine, request }: Side, token: number): Promise<Buffer> {
  if (token === 0) return Buffer.alloc(0);
  const pieces: Buffer[] = [];
  try {
    while (engine.remaining(token) > 0) {
      const piece = engine.take(token, 100_000);
      if (piece === null) await request((number) => engine.prefetch(token, number));
      else pieces.push(piece);
    }
  } finally {
    engine.release(token);
  }
  return Buffer.concat(pieces);
}

function comparable({ headers, ...answer }: SiteAnswer): Comparable {
  const lines: string[] = [];
  for (let at = 0; at < headers.length; at += 2) lines.push(`${headers[at]}: ${headers[at + 1]}`);
  return { ...answer, headers: withoutRandom(lines.join('\n')) };
}

/**
 * Replaces what may differ: random boundaries, content tags (the hash functions differ), and times in the future, which are sent as the
 * current time.
 */
function withoutRandom(text: string): string {
  return text
    .replace(/zerosend-[\da-f]{32}/g, 'zerosend-')
    .replace(/^etag: "[\da-f]{32}"$/gm, 'etag: "hash"')
    .replace(/^last-modified: (.*)$/gm, (line, date) =>
      Date.now() - Date.parse(date) < 600_000 ? 'last-modified: now' : line,
    );
}
