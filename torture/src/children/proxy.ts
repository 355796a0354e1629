/** Proxies, several in one process. */
import type { ProxyOptions, Relay, RelayStatistics } from 'zerosend';

import { control, zerosend } from './control.js';

const proxies = new Map<string, Relay>();

control({
  /** Ports by name. */
  start: async (wanted: Record<string, ProxyOptions>): Promise<Record<string, number>> => {
    const ports: Record<string, number> = {};
    for (const [name, options] of Object.entries(wanted)) {
      const proxy = await zerosend.createProxy(options);
      proxies.set(name, proxy);
      if ('port' in proxy.address) ports[name] = proxy.address.port;
    }
    return ports;
  },
  stats: (): Record<string, RelayStatistics> =>
    Object.fromEntries([...proxies].map(([name, proxy]) => [name, proxy.stats()])),
  end: async () => {
    await Promise.all([...proxies.values()].map((proxy) => proxy.close({ drain: 5000 })));
  },
});
