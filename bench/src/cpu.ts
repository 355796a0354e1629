// CPU time and memory of a process and its descendants, from proc_pid_stat(5) and proc_pid_status(5).

import { readdirSync, readFileSync } from 'node:fs';

/** USER_HZ, which is 100 on all supported architectures. */
const TICKS_PER_SECOND = 100;

/** User and system time in seconds of all threads of the running processes. */
export function cpuSeconds(pid: number): number {
  return family(pid).reduce((sum, one) => sum + parseStat(readFileSync(`/proc/${one}/stat`, 'latin1')), 0);
}

/** Resident bytes. Shared pages count for each process. */
export function residentBytes(pid: number): number {
  const resident = (one: number) =>
    Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${one}/status`, 'latin1'))?.[1] ?? 0);
  return family(pid).reduce((sum, one) => sum + resident(one) * 1024, 0);
}

/** The process and its descendants, which must not start or exit during a measurement. */
function family(pid: number): number[] {
  const tasks = readdirSync(`/proc/${pid}/task`);
  const children = tasks.flatMap((task) => readFileSync(`/proc/${pid}/task/${task}/children`, 'latin1').split(' '));
  return [pid, ...children.filter(Boolean).flatMap((child) => family(Number(child)))];
}

export function parseStat(stat: string): number {
  // The command name may contain spaces and parentheses, so fields are counted from the last one: state is 3, utime 14, stime 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
