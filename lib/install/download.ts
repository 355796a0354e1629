/** Downloads a file: through the proxy of the environment, bounded, tried again where that can help, with errors that say what to do. */
import type { Response } from 'undici';

import { withoutCredentials } from './release.js';

/** How often a server that fails, or a connection that breaks, is asked. */
const TRIES = 3;
/** Milliseconds before the next try, and twice as long before the one after it. */
const PAUSE_MS = 500;
/** Milliseconds without a byte until it is given up. */
const STALL_MS = 30_000;
/** Milliseconds for all of it. */
const DEADLINE_MS = 600_000;

const BY_HAND = 'or download it elsewhere and run "npx zerosend install --from <file>"';

/** A failure that may be gone at the next try. */
class Passing extends Error {}

/**
 * The bytes at `address`, of which there must be `size`. Honours `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (in small letters too), and the
 * `https-proxy`, `proxy` and `noproxy` of an .npmrc. Redirects are followed.
 *
 * @param progress hears of the bytes so far.
 */
export async function download(address: URL, size: number, progress?: (bytes: number) => void): Promise<Buffer> {
  // fetch takes no user and password in a URL.
  const headers: Record<string, string> = address.username === '' ? {} : { authorization: credentials(address) };
  const url = new URL(withoutCredentials(address));
  // Only here, so that nobody else waits for it to be loaded.
  const { EnvHttpProxyAgent, fetch } = await import('undici');
  const proxies = readProxies();
  const signal = AbortSignal.timeout(DEADLINE_MS);
  const dispatcher = new EnvHttpProxyAgent({ ...proxies, headersTimeout: STALL_MS, bodyTimeout: STALL_MS });
  try {
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await fetch(url, { dispatcher, headers, signal });
        return await read(url, response, size, progress);
      } catch (error) {
        const told = error instanceof Refusal || error instanceof Passing ? error : explain(url, error, proxies);
        if (!(told instanceof Passing) || attempt === TRIES) throw told;
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * 2 ** (attempt - 1)));
      }
    }
  } finally {
    await dispatcher.destroy();
  }
}

/** User and password of a URL as the header has them, RFC 7617. */
function credentials(address: URL): string {
  try {
    const [user, password] = [address.username, address.password].map(decodeURIComponent);
    return `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
  } catch {
    throw new Refusal('user or password of the mirror has a % that encodes nothing; write %25 for it');
  }
}

/** What no other try will change. */
class Refusal extends Error {}

async function read(
  url: URL,
  response: Response,
  size: number,
  progress: ((bytes: number) => void) | undefined,
): Promise<Buffer> {
  const { status, statusText, body } = response;
  if (status !== 200 || body === null) {
    await body?.cancel();
    const answer = `${url} answers ${status} ${statusText}`.trimEnd();
    if (status >= 500 || status === 429) throw new Passing(`${answer}; try again later, ${BY_HAND}`);
    throw new Refusal(
      status === 404
        ? `${answer}: there is no such file in that release; look whether the mirror has it, or run "npx zerosend install --build"`
        : `${answer}; look at the mirror or the proxy, ${BY_HAND}`,
    );
  }
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const piece of body) {
    length += piece.byteLength;
    if (length > size) throw new Refusal(`${url} has more than the ${size} bytes of the release; it is not that file`);
    pieces.push(piece);
    progress?.(length);
  }
  return Buffer.concat(pieces);
}

interface Proxies {
  httpProxy?: string;
  httpsProxy?: string;
  noProxy?: string;
}

/** What npm was told comes after what the environment says; what is absent is left to the agent. */
function readProxies(): Proxies {
  const { env } = process;
  const proxies: Proxies = {};
  const secure = env.https_proxy || env.HTTPS_PROXY || env.npm_config_https_proxy || env.npm_config_proxy;
  const plain = env.http_proxy || env.HTTP_PROXY || env.npm_config_proxy;
  const none = env.no_proxy || env.NO_PROXY || env.npm_config_noproxy;
  if (secure) proxies.httpsProxy = secure;
  if (plain) proxies.httpProxy = plain;
  if (none) proxies.noProxy = none;
  for (const [scheme, proxy] of [
    ['HTTPS', secure],
    ['HTTP', plain],
  ]) {
    if (proxy && !(/^https?:\/\//.test(proxy) && URL.canParse(proxy))) {
      throw new Refusal(`the ${scheme} proxy '${proxy}' must be a URL that begins with http:// or https://`);
    }
  }
  return proxies;
}

/** Errors of the network in one line: undici's own say `fetch failed`, and have the reason beneath. */
function explain(url: URL, error: unknown, { httpProxy, httpsProxy }: Proxies): Error {
  const proxy = url.protocol === 'https:' ? httpsProxy : httpProxy;
  let cause = error as NodeJS.ErrnoException;
  while (cause.cause instanceof Error) cause = cause.cause as NodeJS.ErrnoException;
  if (cause.name === 'TimeoutError') {
    return new Refusal(`${url} is too slow: it has taken ${DEADLINE_MS / 60_000} minutes; use a mirror, ${BY_HAND}`);
  }
  const [, refusal] = /^Proxy response \((\d+)\)/.exec(cause.message) ?? [];
  if (refusal !== undefined && proxy !== undefined) {
    const what = refusal === '407' ? 'put user and password into its URL' : 'ask who runs it';
    return new Refusal(
      `the proxy ${withoutCredentials(proxy)} answers ${refusal} for ${url.host}; ${what}, ${BY_HAND}`,
    );
  }
  const through = proxy === undefined ? '' : ` (through the proxy ${withoutCredentials(proxy)})`;
  const what = `${url} cannot be reached${through}: ${cause.code ?? cause.message}`;
  switch (cause.code) {
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
    case 'ECONNREFUSED':
    case 'ENETUNREACH':
    case 'EHOSTUNREACH':
      return new Refusal(
        `${what}; without a network, or behind a proxy: set HTTPS_PROXY or ZEROSEND_MIRROR, ${BY_HAND}`,
      );
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
      return new Refusal(`${what}; name the certificate of your company or proxy by NODE_EXTRA_CA_CERTS, ${BY_HAND}`);
    default:
      return new Passing(`${what}; try again later, ${BY_HAND}`);
  }
}
