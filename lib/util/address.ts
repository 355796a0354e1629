/** Where to listen and where to connect to: addresses as people write them. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';

import type { AddressSettings } from '#native';
import { failure, invalid } from './errors.js';

/**
 * A port of this machine (`8080`), `'host:port'`, `'[::1]:8080'`, `'unix:/path'`, or an object. Without a host it is
 * `'127.0.0.1'`, both to listen on and to connect to. `'unix:@name'` and a path that begins with a NUL character are
 * abstract names of Linux, unix(7). A path and a name have at most 107 bytes.
 */
export type SocketAddress = number | string | { host?: string | undefined; port: number } | { path: string };

/** An address that was bound. */
export type BoundAddress = { host: string; port: number } | { path: string };

const HOST = '127.0.0.1';

/** The address in the engine's words, its name looked up. `name` is the option's, for the error. */
export async function resolveAddress(name: string, address: SocketAddress): Promise<AddressSettings> {
  const settings = readAddress(name, address);
  if (!hasName(settings)) return settings;
  return { ...settings, host: (await lookup(settings.host ?? HOST)).address };
}

/** All addresses that a name has now, of both families, in the order of the resolver; the address itself if it is none. */
export async function resolveAll(name: string, address: SocketAddress): Promise<AddressSettings[]> {
  const settings = readAddress(name, address);
  if (!hasName(settings)) return [settings];
  const found = await lookup(settings.host ?? HOST, { all: true });
  return found.map(({ address: host }) => ({ ...settings, host }));
}

/** Whether the address has to be looked up. */
export function hasName({ path, host }: AddressSettings): boolean {
  return path === undefined && isIP(host ?? HOST) === 0;
}

/** The address with its name as it is. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. */
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

/** Bytes of a path in `sockaddr_un`, without the NUL, unix(7). */
const MAX_PATH = 107;

/** Checks the path or abstract name of a Unix socket. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. */
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
