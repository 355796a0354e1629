// CPU time of a process, all threads, user and system, from proc_pid_stat(5).

import { readFileSync } from 'node:fs';

/** USER_HZ: 100 on every architecture that we build for. */
const TICKS_PER_SECOND = 100;

export function cpuSeconds(pid: number): number {
  return parseStat(readFileSync(`/proc/${pid}/stat`, 'latin1'));
}

export function parseStat(stat: string): number {
  // The command name may hold spaces and parentheses: count from the last one. State is field 3, utime 14, stime 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
