/** Downloads a file, through a proxy if one is configured, with limits of size and time, and retries. */
import type { Response } from 'undici';

import { withoutCredentials } from './release.js';

/** Attempts if the server or the connection fails. */
const MAX_ATTEMPTS = 3;
/** Delay before the second attempt; doubled for the next. */
const RETRY_DELAY_MS = 500;
/** Timeout without a received byte. */
const STALL_MS = 30_000;
/** Timeout for all attempts together. */
const DEADLINE_MS = 600_000;

const MANUALLY = 'or download the file manually and run "npx zerosend install --from <file>"';

/** A failure for which a retry can help. */
class TemporaryError extends Error {}

/**
 * Downloads a file of `size` bytes. Uses the proxy in `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (or in lower case), or `https-proxy`,
 * `proxy` and `noproxy` of an .npmrc. Follows redirects.
 *
 * @param onProgress Called with the number of bytes received so far.
 */
export async function download(address: URL, size: number, onProgress?: (bytes: number) => void): Promise<Buffer> {
  // fetch() rejects URLs with a user name and password.
  const headers: Record<string, string> = address.username === '' ? {} : { authorization: credentials(address) };
  const url = new URL(withoutCredentials(address));
  // Loaded on demand: other commands do not need it.
  const { EnvHttpProxyAgent, fetch } = await import('undici');
  const proxies = readProxies();
  const signal = AbortSignal.timeout(DEADLINE_MS);
  const dispatcher = new EnvHttpProxyAgent({ ...proxies, headersTimeout: STALL_MS, bodyTimeout: STALL_MS });
  try {
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await fetch(url, { dispatcher, headers, signal });
        return await read(url, response, size, onProgress);
      } catch (error) {
        const known = error instanceof PermanentError || error instanceof TemporaryError;
        const explained = known ? error : explain(url, error, proxies);
        if (!(explained instanceof TemporaryError) || attempt === MAX_ATTEMPTS) throw explained;
        await new Promise((resolve) => setTimeout(resolve, RETRY_DELAY_MS * 2 ** (attempt - 1)));
      }
    }
  } finally {
    await dispatcher.destroy();
  }
}

/** The user name and password of a URL as an `Authorization` header, RFC 7617. */
function credentials(address: URL): string {
  try {
    const [user, password] = [address.username, address.password].map(decodeURIComponent);
    return `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
  } catch {
    throw new PermanentError('invalid escape in the user name or password of the mirror; write a percent sign as %25');
  }
}

/** A failure for which a retry does not help. */
class PermanentError extends Error {}

async function read(
  url: URL,
  response: Response,
  size: number,
  onProgress: ((bytes: number) => void) | undefined,
): Promise<Buffer> {
  const { status, statusText, body } = response;
  if (status !== 200 || body === null) {
    await body?.cancel();
    const answer = `${url} responded with ${status} ${statusText}`.trimEnd();
    if (status >= 500 || status === 429) throw new TemporaryError(`${answer}; try again later, ${MANUALLY}`);
    throw new PermanentError(
      status === 404
        ? `${answer}: the file does not exist; check the mirror, or run "npx zerosend install --build"`
        : `${answer}; check the mirror and the proxy, ${MANUALLY}`,
    );
  }
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body) {
    length += chunk.byteLength;
    if (length > size)
      throw new PermanentError(`${url} has more than the expected ${size} bytes; it is not the file of this release`);
    chunks.push(chunk);
    onProgress?.(length);
  }
  return Buffer.concat(chunks);
}

interface Proxies {
  httpProxy?: string;
  httpsProxy?: string;
  noProxy?: string;
}

/** Reads the proxies; the environment takes precedence over the configuration of npm. */
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
      throw new PermanentError(`invalid ${scheme} proxy '${proxy}': use a URL that begins with http:// or https://`);
    }
  }
  return proxies;
}

/** Describes a network error in one line. The message of undici is `fetch failed`; the reason is in `cause`. */
function explain(url: URL, error: unknown, { httpProxy, httpsProxy }: Proxies): Error {
  const proxy = url.protocol === 'https:' ? httpsProxy : httpProxy;
  let cause = error as NodeJS.ErrnoException;
  while (cause.cause instanceof Error) cause = cause.cause as NodeJS.ErrnoException;
  if (cause.name === 'TimeoutError') {
    return new PermanentError(
      `downloading ${url} took longer than ${DEADLINE_MS / 60_000} minutes; use a mirror, ${MANUALLY}`,
    );
  }
  const [, refusal] = /^Proxy response \((\d+)\)/.exec(cause.message) ?? [];
  if (refusal !== undefined && proxy !== undefined) {
    const what = refusal === '407' ? 'add a user name and password to its URL' : 'contact its administrator';
    return new PermanentError(
      `the proxy ${withoutCredentials(proxy)} responded with ${refusal} for ${url.host}; ${what}, ${MANUALLY}`,
    );
  }
  const through = proxy === undefined ? '' : ` (through proxy ${withoutCredentials(proxy)})`;
  const what = `cannot reach ${url}${through}: ${cause.code ?? cause.message}`;
  switch (cause.code) {
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
    case 'ECONNREFUSED':
    case 'ENETUNREACH':
    case 'EHOSTUNREACH':
      return new PermanentError(`${what}; set HTTPS_PROXY or ZEROSEND_MIRROR, ${MANUALLY}`);
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
      return new PermanentError(
        `${what}; set NODE_EXTRA_CA_CERTS to the CA certificate of your company or proxy, ${MANUALLY}`,
      );
    default:
      return new TemporaryError(`${what}; try again later, ${MANUALLY}`);
  }
}
