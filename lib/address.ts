/** Where to listen and where to connect to: addresses as people write them. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';

import { invalid } from './errors.js';
import type { AddressSettings } from './native.js';

/**
 * A port of this machine (`8080`), `'host:port'`, `'[::1]:8080'`, `'unix:/path'`, or an object. As a place to listen on a
 * missing host is `'127.0.0.1'`, and so it is as a place to connect to.
 */
export type SocketAddress = number | string | { host?: string | undefined; port: number } | { path: string };

/** An address that was bound. */
export type BoundAddress = { host: string; port: number } | { path: string };

const HOST = '127.0.0.1';

/** The address in the engine's words, its name looked up. `name` is the option's, for the error. */
export async function resolveAddress(name: string, address: SocketAddress): Promise<AddressSettings> {
  const settings = readAddress(name, address);
  if (settings.path !== undefined || isIP(settings.host ?? '') !== 0) return settings;
  return { ...settings, host: (await lookup(settings.host ?? HOST)).address };
}

/** The address with its name as it is. Throws `ERR_ZEROSEND_INVALID_ARGUMENT`. */
export function readAddress(name: string, address: SocketAddress): AddressSettings {
  const wrong = () => invalid(name, address, "a port, 'host:port', 'unix:/path', { host, port } or { path }");
  if (typeof address === 'object' && address !== null && 'path' in address) {
    if (typeof address.path !== 'string' || address.path === '') throw wrong();
    return { port: 0, path: address.path };
  }
  let host: string | undefined;
  let port: number;
  if (typeof address === 'string') {
    if (address.startsWith('unix:') && address.length > 5) return { port: 0, path: address.slice(5) };
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
