/** The resources of a process, from procfs. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface Held {
  sockets: number;
  files: number;
  pipes: number;
  /** Descriptors of event loops and timers. */
  other: number;
  threads: number;
  /** Mappings of files and of shared memory, without those of the program. */
  fileMappings: number;
  /** Sockets closed by the peer but not by this process. */
  closeWait: number;
  /** Bytes. */
  rss: number;
}

/** Undefined when the process has exited. */
export function measure(pid: number): Held | undefined {
  const held: Held = { sockets: 0, files: 0, pipes: 0, other: 0, threads: 0, fileMappings: 0, closeWait: 0, rss: 0 };
  try {
    const inodes = new Set<string>();
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      let link = '';
      try {
        link = readlinkSync(`/proc/${pid}/fd/${fd}`);
      } catch {
        continue;
      }
      if (link.startsWith('socket:')) {
        held.sockets += 1;
        inodes.add(link.slice(8, -1));
      } else if (link.startsWith('pipe:')) held.pipes += 1;
      else if (link.startsWith('/') && !link.startsWith('/dev/')) held.files += 1;
      else held.other += 1;
    }
    held.threads = readdirSync(`/proc/${pid}/task`).length;
    const maps = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
    held.fileMappings = maps.filter((line) => /zerosend-torture|\/memfd:|\/dev\/shm/.test(line)).length;
    held.rss = Number(/^VmRSS:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
    for (const table of ['tcp', 'tcp6']) {
      for (const line of readFileSync(`/proc/${pid}/net/${table}`, 'utf8').split('\n').slice(1)) {
        const fields = line.trim().split(/\s+/);
        if (fields[3] === '08' && inodes.has(fields[9] ?? '')) held.closeWait += 1;
      }
    }
    return held;
  } catch {
    return undefined;
  }
}

/** Files that caches may hold open: all files of all sites of a process. */
const CACHED_FILES = 400;

/**
 * Allowed growth after the first round: thread pools grow to their limits on demand, and each worker of a proxy keeps reserve descriptors
 * after it has accepted a connection.
 */
const POOLED = { sockets: 0, other: 16, threads: 8 };

/** The resources of `now` that exceed `base`, as text; undefined when there are none. */
export function excess(base: Held, now: Held, pooledPipes = 32): string | undefined {
  const more: string[] = [];
  // Both ends of each pipe.
  const bounds = { ...POOLED, pipes: 2 * pooledPipes };
  for (const key of ['sockets', 'pipes', 'other', 'threads'] as const) {
    if (now[key] > base[key] + bounds[key]) more.push(`${key} ${base[key]} -> ${now[key]}`);
  }
  for (const key of ['files', 'fileMappings'] as const) {
    if (now[key] > Math.max(base[key], CACHED_FILES)) more.push(`${key} ${base[key]} -> ${now[key]}`);
  }
  if (now.closeWait > 0) more.push(`${now.closeWait} sockets in CLOSE-WAIT`);
  return more.length === 0 ? undefined : more.join(', ');
}
