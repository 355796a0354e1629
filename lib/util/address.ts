/** Parses socket addresses to listen on or connect to, and looks up their host names. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';

import type { AddressSettings } from '#native';
import { failure, invalid } from './errors.js';

/**
 * A port (`8080`), `'host:port'`, `'[::1]:8080'`, `'unix:/path'`, or an object. The default host is `'127.0.0.1'`, both to
 * listen on and to connect to. `'unix:@name'` and a path that begins with a NUL character name an abstract Unix socket
 * (unix(7)). Paths and names have at most 107 bytes.
 */
export type SocketAddress = number | string | { host?: string | undefined; port: number } | { path: string };

/** The address of a listening socket. */
export type BoundAddress = { host: string; port: number } | { path: string };

const HOST = '127.0.0.1';

/** Parses an address and looks up its host name. `name` is the option's name, for errors. */
export async function resolveAddress(name: string, address: SocketAddress): Promise<AddressSettings> {
  const settings = readAddress(name, address);
  if (!hasName(settings)) return settings;
  return { ...settings, host: (await lookup(settings.host ?? HOST)).address };
}

/** As {@link resolveAddress}, with all addresses of a host name, of both families, in the order of the resolver. */
export async function resolveAll(name: string, address: SocketAddress): Promise<AddressSettings[]> {
  const settings = readAddress(name, address);
  if (!hasName(settings)) return [settings];
  const found = await lookup(settings.host ?? HOST, { all: true });
  return found.map(({ address: host }) => ({ ...settings, host }));
}

/** Whether the host is a name, not an IP address. */
export function hasName({ path, host }: AddressSettings): boolean {
  return path === undefined && isIP(host ?? HOST) === 0;
}

/** Parses an address without looking up its host name. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. */
export function readAddress(name: string, address: SocketAddress): AddressSettings {
  const wrong = () => invalid(name, address, "a port, 'host:port', 'unix:/path', { host, port } or { path }");
  if (typeof address === 'object' && address !== null && 'path' in address) {
    if (typeof address.path !== 'string' || address.path === '') throw wrong();
    return { port: 0, path: checkPath(name, address.path) };
  }
  let host: string | undefined;
  let port: number;
  if (typeof address === 'string') {
    if (address.startsWith('unix:') && address.length > 5) {
      return { port: 0, path: checkPath(name, address.slice(5).replace(/^@/, '\0')) };
    }
    const parts = /^(?:(\[[^\]]+\]|[^:[\]]+)?:)?(\d{1,5})$/.exec(address);
    if (parts === null) throw wrong();
    host = parts[1]?.replace(/^\[|\]$/g, '');
    port = Number(parts[2]);
  } else if (typeof address === 'number') {
    port = address;
  } else {
    ({ host, port } = address ?? ({} as { port: number }));
  }
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw wrong();
  if (host !== undefined && (typeof host !== 'string' || host === '')) throw wrong();
  return { host: host ?? HOST, port };
}

/** Bytes of a path in `sockaddr_un`, without the trailing NUL, unix(7). */
const MAX_PATH = 107;

/** Checks the path or the abstract name of a Unix socket. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. */
export function checkPath(name: string, path: string): string {
  const isAbstract = path.startsWith('\0');
  const length = Buffer.byteLength(path) - (isAbstract ? 1 : 0);
  if (length === 0 || length > MAX_PATH) {
    const shown = isAbstract ? `@${path.slice(1)}` : path;
    throw failure(
      'ERR_ZEROSEND_INVALID_ARGUMENT',
      `invalid ${name} '${shown}': the path of a Unix socket has 1 to ${MAX_PATH} bytes, not ${length}`,
    );
  }
  if (path.includes('\0', 1) && !isAbstract) throw invalid(name, path, 'a path without NUL characters');
  return path;
}
