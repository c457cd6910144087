import { cpus, hostname, platform, release, totalmem } from 'node:os';
import type { AtomicFile } from '../src/formats/atomic.js';
import { createTimings } from '../src/report/timings.js';
import type { ReportObject } from '../src/report/values.js';

/** Stages of one run, for `--timings`. The clock and the machine are read here, at the edge. */
export interface RunTimings {
  begin(stage: string): void;
  count(name: string, amount: number): void;
  /** Times of parts of the work, one record each. */
  list(name: string, records: readonly ReportObject[]): void;
  write(file: AtomicFile, options: { readonly threads: number; readonly maxMemory: number }): void;
}

export function startRunTimings(command: string): RunTimings {
  const timings = createTimings(() => performance.now());
  return {
    begin: (stage) => timings.begin(stage),
    count: (name, amount) => timings.count(name, amount),
    list: (name, records) => timings.list(name, records),
    write(file, options) {
      timings.write(file, command, {
        name: hostname(),
        platform: `${platform()} ${release()}`,
        node: process.version,
        processor: cpus()[0]?.model ?? 'unknown',
        processors: cpus().length,
        memory_bytes: totalmem(),
        threads: options.threads,
        max_memory_bytes: options.maxMemory,
        peak_resident_bytes: process.resourceUsage().maxRSS * 1024,
      });
    },
  };
}
