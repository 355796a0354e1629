// CPU time and memory of a process and of those that it has started, from proc_pid_stat(5) and proc_pid_status(5).

import { readdirSync, readFileSync } from 'node:fs';

/** USER_HZ: 100 on every architecture that we build for. */
const TICKS_PER_SECOND = 100;

/** Seconds of all threads, user and system, of all that runs now. */
export function cpuSeconds(pid: number): number {
  return family(pid).reduce((sum, one) => sum + parseStat(readFileSync(`/proc/${one}/stat`, 'latin1')), 0);
}

/** Resident bytes, shared ones with each. */
export function residentBytes(pid: number): number {
  const resident = (one: number) =>
    Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${one}/status`, 'latin1'))?.[1] ?? 0);
  return family(pid).reduce((sum, one) => sum + resident(one) * 1024, 0);
}

/** The process, its children, and theirs. They must not come and go meanwhile: servers have theirs from the start. */
function family(pid: number): number[] {
  const tasks = readdirSync(`/proc/${pid}/task`);
  const children = tasks.flatMap((task) => readFileSync(`/proc/${pid}/task/${task}/children`, 'latin1').split(' '));
  return [pid, ...children.filter(Boolean).flatMap((child) => family(Number(child)))];
}

export function parseStat(stat: string): number {
  // The command name may hold spaces and parentheses: count from the last one. State is field 3, utime 14, stime 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
