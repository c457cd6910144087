import { readFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { posix } from 'node:path';
import type { Environment } from './edge-values.js';

/** What the edge asks of the machine; tests give their own. */
export interface Machine {
  /** Text of a system file, or undefined when there is none. */
  readonly readFile: (path: string) => string | undefined;
  /** CPUs that this process may run on (affinity). */
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly env: Environment;
}

export function thisMachine(): Machine {
  return {
    readFile(path) {
      try {
        return readFileSync(path, 'utf8');
      } catch {
        return undefined;
      }
    },
    cpus: availableParallelism(),
    memoryBytes: totalmem(),
    env: process.env,
  };
}

/** The group's directories from its own up to the root of the mount: a limit of any of them holds. */
function* groupDirectories(mount: string, path: string): Generator<string> {
  for (let at = posix.normalize(`/${path}`); ; at = posix.dirname(at)) {
    yield at === '/' ? mount : posix.join(mount, at);
    if (at === '/') return;
  }
}

interface ControlGroups {
  /** Directories of the unified hierarchy (cgroup v2). */
  readonly unified: string[];
  /** Directories of one controller (cgroup v1). */
  of(controller: string): string[];
}

/** Where this process's limits stand, from /proc/self/cgroup (cgroups(7)). */
function controlGroups(machine: Machine): ControlGroups {
  const unified: string[] = [];
  const byController = new Map<string, string[]>();
  for (const line of machine.readFile('/proc/self/cgroup')?.split('\n') ?? []) {
    const match = /^\d+:([^:]*):(.*)$/.exec(line);
    if (!match) continue;
    if (match[1] === '') unified.push(...groupDirectories('/sys/fs/cgroup', match[2]));
    for (const controller of match[1].split(',').filter(Boolean)) {
      byController.set(controller, [
        ...groupDirectories(`/sys/fs/cgroup/${match[1]}`, match[2]),
        ...groupDirectories(`/sys/fs/cgroup/${controller}`, match[2]),
      ]);
    }
  }
  return { unified, of: (controller) => byController.get(controller) ?? [] };
}

const numberIn = (text: string | undefined): number | undefined => {
  const value = text === undefined || text.trim() === '' ? Number.NaN : Number(text.trim());
  return Number.isFinite(value) ? value : undefined;
};

/** CPU quota of the control group in CPUs (1.5 = one and a half), or undefined without one. */
function quotaCpus(machine: Machine, groups: ControlGroups): number | undefined {
  const quotas: number[] = [];
  for (const directory of groups.unified) {
    const [quota, period] = (machine.readFile(`${directory}/cpu.max`) ?? '').trim().split(/\s+/).map(Number);
    if (quota > 0 && period > 0) quotas.push(quota / period);
  }
  for (const directory of groups.of('cpu')) {
    const quota = numberIn(machine.readFile(`${directory}/cpu.cfs_quota_us`));
    const period = numberIn(machine.readFile(`${directory}/cpu.cfs_period_us`));
    if (quota !== undefined && period !== undefined && quota > 0 && period > 0) quotas.push(quota / period);
  }
  return quotas.length > 0 ? Math.min(...quotas) : undefined;
}

/** Threads that this process may use: affinity, control-group quota (rounded down, at least 1), SLURM_CPUS_PER_TASK. */
export function usableThreads(machine: Machine = thisMachine()): number {
  const quota = quotaCpus(machine, controlGroups(machine)) ?? Number.POSITIVE_INFINITY;
  const slurm = numberIn(machine.env.SLURM_CPUS_PER_TASK);
  const granted = slurm !== undefined && slurm >= 1 ? slurm : Number.POSITIVE_INFINITY;
  return Math.max(1, Math.floor(Math.min(machine.cpus, quota, granted)));
}

/** Memory in bytes that this process may use: the smallest limit of its control groups, or the machine's memory. */
export function memoryLimitBytes(machine: Machine = thisMachine()): number {
  const groups = controlGroups(machine);
  const limits = [machine.memoryBytes];
  for (const directory of groups.unified)
    limits.push(numberIn(machine.readFile(`${directory}/memory.max`)) ?? Number.NaN);
  for (const directory of groups.of('memory')) {
    limits.push(numberIn(machine.readFile(`${directory}/memory.limit_in_bytes`)) ?? Number.NaN);
  }
  return Math.min(...limits.filter((limit) => limit > 0));
}

/** The default of `--max-memory`: three quarters of the limit, in bytes. */
export function defaultMaxMemoryBytes(machine: Machine = thisMachine()): number {
  return Math.floor(memoryLimitBytes(machine) * 0.75);
}
