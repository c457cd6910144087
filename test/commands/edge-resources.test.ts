import { describe, expect, it } from 'vitest';
import {
  defaultMaxMemoryBytes,
  type Machine,
  memoryLimitBytes,
  thisMachine,
  usableThreads,
} from '../../commands/edge-resources.js';

const machine = (files: Record<string, string>, env: Record<string, string> = {}): Machine => ({
  readFile: (path) => files[path],
  cpus: 8,
  memoryBytes: 64e9,
  env,
});

describe('resources', () => {
  it.each([
    ['no control group', {}, {}, 8, 64e9],
    [
      'cgroup v2, the limit of a parent',
      {
        '/proc/self/cgroup': '0::/a/b\n',
        '/sys/fs/cgroup/a/b/cpu.max': 'max 100000',
        '/sys/fs/cgroup/a/cpu.max': '250000 100000\n',
        '/sys/fs/cgroup/a/b/memory.max': 'max\n',
        '/sys/fs/cgroup/a/memory.max': '4000000000\n',
      },
      {},
      2,
      4e9,
    ],
    [
      'cgroup v2 in a namespace',
      {
        '/proc/self/cgroup': '0::/\n',
        '/sys/fs/cgroup/cpu.max': '50000 100000',
        '/sys/fs/cgroup/memory.max': '1000000',
      },
      {},
      1,
      1e6,
    ],
    [
      'cgroup v1 in a container whose own path is not mounted',
      {
        '/proc/self/cgroup': '4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n',
        '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': '300000\n',
        '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us': '100000\n',
        '/sys/fs/cgroup/memory/memory.limit_in_bytes': '2000000000\n',
      },
      {},
      3,
      2e9,
    ],
    [
      'cgroup v1 without limits',
      {
        '/proc/self/cgroup': '4:memory:/\n3:cpu:/\n',
        '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1\n',
        '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
        '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
      },
      {},
      8,
      64e9,
    ],
    ['Slurm', {}, { SLURM_CPUS_PER_TASK: '4' }, 4, 64e9],
    ['Slurm that grants more than there is', {}, { SLURM_CPUS_PER_TASK: '40' }, 8, 64e9],
    ['a variable that is no number', {}, { SLURM_CPUS_PER_TASK: 'many' }, 8, 64e9],
  ])('with %s', (_, files, env, threads, memory) => {
    expect(usableThreads(machine(files, env))).toBe(threads);
    expect(memoryLimitBytes(machine(files, env))).toBe(memory);
    expect(defaultMaxMemoryBytes(machine(files, env))).toBe(Math.floor(memory * 0.75));
  });

  it('of this machine are within what it has', () => {
    const here = thisMachine();
    expect(usableThreads(here)).toBeGreaterThanOrEqual(1);
    expect(usableThreads(here)).toBeLessThanOrEqual(here.cpus);
    expect(memoryLimitBytes(here)).toBeLessThanOrEqual(here.memoryBytes);
  });
});
