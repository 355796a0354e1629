/** Clients that send requests of all kinds for files, and the checks of their responses. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Child } from '../child.js';
import type { ServeKind } from '../children/serve.js';
import type { Snapshot, Tracked } from '../files.js';
import { exchange, type Manners, type Outcome, type Request, type Response, randomManners } from '../http-client.js';
import type { Random } from '../random.js';
import { RECORD, verify } from '../records.js';
import type { Report, Trouble } from '../report.js';
import type { World } from '../world.js';

/** Maximum milliseconds for a response, under all conditions. */
const RESPONSE_TIMEOUT_MS = 60_000;

/** A site of a running server. */
export interface Endpoint {
  kind: ServeKind;
  child: Child;
  port: number;
  site: string;
  files: readonly Tracked[];
  /** Path of the site's root below the root of the world. It is removed from the path of a file to get its URL. */
  below: string;
  /** The server is sometimes stopped or killed. */
  trouble: Trouble;
  /** Number of responses after which the server closes a connection. */
  requestsPerConnection: number | undefined;
  /** Entity tags by file, with their version. */
  tags: Map<Tracked, Map<string, number>>;
}

interface Asked extends Request {
  file: Tracked;
  before: Snapshot;
  sentAt: number;
  /** Milliseconds from the connection, or the previous response, to the last byte of the head. */
  headTook: number;
  range: { start: number; end: number | undefined } | undefined;
  tag: { value: string; version: number } | undefined;
}

/** Makes requests until `signal` is aborted. */
export async function askForFiles(
  world: World,
  endpoints: readonly Endpoint[],
  report: Report,
  random: Random,
  signal: AbortSignal,
): Promise<void> {
  // Some files are requested repeatedly, because errors of a cache show at the second request.
  let focus: { endpoint: Endpoint; file: Tracked } | undefined;
  while (!signal.aborted) {
    if (focus === undefined || random.chance(0.1)) {
      const endpoint = random.pick(endpoints);
      focus = { endpoint, file: random.pick(endpoint.files) };
    }
    const { endpoint, file } = focus;
    if (!endpoint.child.running) {
      await sleep(100);
      continue;
    }
    const manners = randomManners(random);
    const count = random.chance(0.5) ? 1 : random.int(2, 8);
    const requests: Asked[] = [];
    for (let at = 0; at < count; at++)
      requests.push(makeRequest(endpoint, random.chance(0.7) ? file : random.pick(endpoint.files), random));
    if (requests.length > 0 && random.chance(0.2)) {
      (requests.at(-1) as Asked).headers.Connection = 'close';
      // Node's parser responds to these bytes with 400, also before the pending response.
      if (endpoint.kind === 'server' && random.chance(0.3)) manners.trailing = 'x'.repeat(random.int(1, 100_000));
    }
    const begun = performance.now();
    const outcome = await exchange(endpoint.port, requests, manners, random, RESPONSE_TIMEOUT_MS);
    judge(world, endpoint, requests, manners, outcome, begun, report);
    if (random.chance(0.1)) await sleep(random.int(0, 50));
  }
}

function makeRequest(endpoint: Endpoint, file: Tracked, random: Random): Asked {
  const request: Asked = {
    method: random.chance(0.1) ? 'HEAD' : 'GET',
    path: `/${endpoint.site}/${file.url.slice(endpoint.below.length)}`,
    headers: {},
    file,
    before: file.snapshot(),
    sentAt: performance.now(),
    headTook: 0,
    range: undefined,
    tag: undefined,
  };
  request.onSend = () => {
    request.before = file.snapshot();
    request.headTook = performance.now() - request.sentAt;
    request.sentAt = performance.now();
  };
  if (request.method === 'GET' && random.chance(0.2) && file.size > 0) {
    const start = random.int(0, file.size - 1);
    const end = random.chance(0.3) ? undefined : Math.min(start + random.int(0, 200_000), file.size - 1);
    request.range = { start, end };
    request.headers.Range = `bytes=${start}-${end ?? ''}`;
  } else if (random.chance(0.25)) {
    const tags = [...(endpoint.tags.get(file) ?? [])];
    if (tags.length > 0) {
      const [value, version] = random.pick(tags);
      request.tag = { value, version };
      request.headers['If-None-Match'] = value;
    }
  }
  return request;
}

function judge(
  world: World,
  endpoint: Endpoint,
  requests: readonly Asked[],
  manners: Manners,
  outcome: Outcome,
  begun: number,
  report: Report,
): void {
  const area = endpoint.kind;
  const where = () =>
    `${endpoint.site} ${JSON.stringify({ ...manners, trailing: manners.trailing.length })} ${requests.map(({ path, headers }) => `${path} ${JSON.stringify(headers)}`).join('; ')}`;
  const excused = endpoint.trouble.since(begun, 100);
  if (outcome.ending === 'timeout' && !excused) {
    report.fault(
      area,
      'hangs',
      `${outcome.responses.length} of ${requests.length} responses after ${RESPONSE_TIMEOUT_MS} ms: ${where()}`,
    );
    return;
  }
  for (const [at, response] of outcome.responses.entries()) {
    judgeResponse(world, endpoint, requests[at] as Asked, response, outcome, excused, report, where);
  }
  report.count(area, 'connections');
  if (outcome.aborted) {
    report.count(area, 'connections aborted by the client');
    return;
  }
  // A server may close after a response. Responses that it has begun, and those of requests before it announced the close, must be
  // complete.
  const limit = Math.min(requests.length, endpoint.requestsPerConnection ?? requests.length);
  const fuse = requests.some(({ file }) => isFuse(world, file)) && world.fuse?.trouble.since(begun, 1000);
  const disturbed = requests.some((request) => isDisturbed(request));
  // Behind Node's parser, a client that has half-closed its connection gets files whose lookup takes at most five seconds, but not
  // the responses of Node, for example 404.
  const absent = requests.some(({ file, before }) => before.absent || file.absences !== before.absences);
  const slow = requests.some(({ file }) => isFuse(world, file));
  const endedByNode = manners.halfClose && endpoint.kind !== 'server' && (absent || slow);
  const closedByResponse = outcome.responses.some(({ headers }) => headers.connection?.toLowerCase() === 'close');
  // The keep-alive timeout starts when the last byte is in the socket buffer, from which a slow client may read much later. For a
  // request whose head was not complete, it starts with the request.
  const waited = ({ headTook, sentAt }: Asked) => (headTook > 0 ? headTook : performance.now() - sentAt);
  const idled = endpoint.kind !== 'server' && !manners.pipelined && requests.some((request) => waited(request) > 4000);
  if (
    outcome.responses.length < limit &&
    !excused &&
    !fuse &&
    !disturbed &&
    !closedByResponse &&
    !endedByNode &&
    !idled
  ) {
    report.fault(
      area,
      `closed without all responses (${outcome.ending})`,
      `${outcome.responses.length} of ${limit}: ${where()}`,
    );
  }
}

const isFuse = (world: World, file: Tracked) => world.fuse?.files.includes(file) === true;

/** Whether the file was truncated or overwritten during the request. */
function isDisturbed({ file, before }: Asked): boolean {
  return before.disturbing || file.disturbances !== before.disturbances;
}

function judgeResponse(
  world: World,
  endpoint: Endpoint,
  request: Asked,
  response: Response,
  outcome: Outcome,
  excused: boolean,
  report: Report,
  where: () => string,
): void {
  const area = endpoint.kind;
  const { file, before, range } = request;
  const after = file.snapshot();
  const describe = () =>
    `${file.kind} file ${request.path}, ${response.status} with ${response.body.length} bytes of ${response.headers['content-length']}, versions ${before.complete} to ${after.begun}; ${where()}`;
  const lenient = excused || (isFuse(world, file) && world.fuse?.trouble.since(request.sentAt, 1000) === true);
  report.count(area, `status ${response.status}`);
  switch (response.status) {
    case 200:
    case 206:
      break;
    case 304:
      if (request.tag === undefined) report.fault(area, '304 without a condition', describe());
      else if (request.tag.version < before.complete && !sameTag(file, request.tag, before.complete)) {
        report.fault(area, `304 for an older version (${file.kind})`, `tag of ${request.tag.version}; ${describe()}`);
      }
      return;
    case 404:
      if (!before.absent && file.absences === before.absences && !lenient)
        report.fault(area, `404 for an existing file (${file.kind})`, describe());
      return;
    case 416:
      if (range === undefined || ![...sizesSince(file, before)].some((size) => size <= range.start)) {
        if (!isDisturbed(request) && !lenient) report.fault(area, '416 for a valid range', describe());
      }
      return;
    default:
      // The head was sent too slowly, byte by byte on a busy machine.
      if (response.status === 408 && request.headTook > 5000) return;
      if (!lenient) report.fault(area, `status ${response.status}`, describe());
      return;
  }
  if (!response.whole) {
    if (outcome.aborted) return;
    report.count(area, 'responses cut');
    if (!lenient && !isDisturbed(request))
      report.fault(area, `a response was truncated without a reason (${file.kind})`, describe());
  }
  if (request.method === 'HEAD') return;
  judgeBody(endpoint, request, response, after, report, describe);
}

function judgeBody(
  endpoint: Endpoint,
  request: Asked,
  response: Response,
  after: Snapshot,
  report: Report,
  describe: () => string,
): void {
  const area = endpoint.kind;
  const { file, before } = request;
  let offset = 0;
  let total = Number(response.headers['content-length']);
  if (response.status === 206) {
    const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(response.headers['content-range'] ?? '');
    if (match === null || request.range === undefined) {
      report.fault(area, 'a wrong Content-Range', describe());
      return;
    }
    offset = Number(match[1]);
    const last = Number(match[2]);
    if (offset !== request.range.start || (request.range.end !== undefined && last > request.range.end)) {
      report.fault(area, 'a range that was not requested', describe());
      return;
    }
    if (last - offset + 1 !== total) {
      report.fault(area, 'Content-Range and Content-Length differ', describe());
      return;
    }
    total = Number(match[3]);
  }
  const { min, max, bad } = verify(response.body, file.id, offset);
  report.count(area, 'bytes verified', response.body.length);
  if (bad !== undefined && !(isDisturbed(request) && isTornTail(file, before, bad.offset))) {
    report.fault(area, `wrong bytes (${file.kind})`, `at ${bad.offset}: ${bad.got}; ${describe()}`);
  }
  const sizes = sizesSince(file, before);
  if (!isDisturbed(request) && !sizes.has(total)) {
    report.fault(
      area,
      `stale or wrong size (${file.kind})`,
      `${total} instead of ${[...sizes].join(' or ')}; ${describe()}`,
    );
  }
  if (min === undefined || max === undefined) return;
  if (min < before.complete)
    report.fault(area, `stale (${file.kind})`, `version ${min} instead of ${before.complete}; ${describe()}`);
  if (max > after.begun) report.fault(area, 'a version that does not exist', `${max}; ${describe()}`);
  const inPlace = file.kind === 'rewrite' || file.kind === 'resize';
  if (min !== max && !inPlace) report.fault(area, `versions mixed (${file.kind})`, `${min} and ${max}; ${describe()}`);
  if (response.whole && min === max) rememberTag(endpoint, file, response, min, report, describe);
}

/**
 * A file that was truncated while it was sent: sendfile(2) passes pages to the socket by reference, and truncate(2) clears the rest of
 * the last page (or large folio); pages passed before may follow.
 */
function isTornTail(file: Tracked, before: Snapshot, offset: number): boolean {
  return file.kind === 'resize' && offset + RECORD > Math.min(...sizesSince(file, before));
}

function sizesSince(file: Tracked, before: Snapshot): Set<number> {
  const sizes = new Set<number>();
  for (let version = before.complete; version <= file.begun; version++) {
    const size = file.sizes.get(version);
    if (size !== undefined) sizes.add(size);
  }
  return sizes;
}

/** Whether a weak tag of one version is also that of a later one: for a file written in place, or with the old time. */
function sameTag(file: Tracked, tag: { value: string; version: number }, version: number): boolean {
  if (!tag.value.startsWith('W/')) return false;
  // Two versions within one second have the same time in whole seconds.
  if (file.url.startsWith('coarse/')) return true;
  for (let at = tag.version + 1; at <= version; at++)
    if (!file.sameTime.has(at)) return file.kind === 'rewrite' || file.kind === 'resize';
  return true;
}

function rememberTag(
  endpoint: Endpoint,
  file: Tracked,
  response: Response,
  version: number,
  report: Report,
  describe: () => string,
): void {
  const { etag } = response.headers;
  // A file written in place also has tags of the moments between two versions.
  if (etag === undefined || file.kind === 'rewrite' || file.kind === 'resize') return;
  let tags = endpoint.tags.get(file);
  if (tags === undefined) {
    tags = new Map();
    endpoint.tags.set(file, tags);
  }
  const known = tags.get(etag);
  if (
    known !== undefined &&
    known !== version &&
    !sameTag(file, { value: etag, version: Math.min(known, version) }, Math.max(known, version))
  ) {
    report.fault(
      endpoint.kind,
      'one entity tag for two versions',
      `${etag} for ${known} and ${version}; ${describe()}`,
    );
  }
  tags.set(etag, Math.max(version, known ?? 0));
  if (tags.size > 8) tags.delete(tags.keys().next().value as string);
}
