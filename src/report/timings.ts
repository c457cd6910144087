import type { AtomicFile } from '../formats/atomic.js';
import { printJson, type ReportObject, type ReportValue, toJsonValue } from './values.js';

/** Wall times of a run by stage. They stand in a file of their own, since reports must be reproducible. */
export interface Timings {
  /** Ends the stage at work, if any, and begins `name`. A stage that returns adds up. */
  begin(name: string): void;
  /** Counts something beside the times, for rates: tokens, documents, bytes. */
  count(name: string, amount: number): void;
  /** Times of parts of the work, one record each, under `name`. */
  list(name: string, records: readonly ReportObject[]): void;
  /** Ends the stage at work and gives seconds by stage in the order of their first start. */
  finish(): { readonly totalSeconds: number; readonly stages: readonly { name: string; seconds: number }[] };
  /** Writes everything with the facts about the machine; the caller commits. */
  write(file: AtomicFile, command: string, host: { readonly [key: string]: ReportValue }): void;
}

/** @param now milliseconds, increasing; the edge gives the clock */
export function createTimings(now: () => number): Timings {
  const start = now();
  const seconds = new Map<string, number>();
  const counts = new Map<string, number>();
  const lists = new Map<string, readonly ReportObject[]>();
  let current: { name: string; since: number } | undefined;
  const end = (): void => {
    if (current) seconds.set(current.name, (seconds.get(current.name) ?? 0) + (now() - current.since) / 1000);
    current = undefined;
  };
  const timings: Timings = {
    begin(name) {
      end();
      current = { name, since: now() };
      if (!seconds.has(name)) seconds.set(name, 0);
    },
    count: (name, amount) => void counts.set(name, (counts.get(name) ?? 0) + amount),
    list: (name, records) => void lists.set(name, records),
    finish() {
      end();
      return {
        totalSeconds: (now() - start) / 1000,
        stages: Array.from(seconds, ([name, value]) => ({ name, seconds: value })),
      };
    },
    write(file, command, host) {
      const { totalSeconds, stages } = timings.finish();
      const rates = Array.from(counts, ([name, amount]): [string, number] => [
        `${name}_per_second`,
        amount / totalSeconds,
      ]);
      const value = {
        schema: 'surprisal/timings',
        schema_version: 1,
        command,
        total_seconds: totalSeconds,
        stages,
        counts: Object.fromEntries(counts),
        rates: Object.fromEntries(rates),
        ...Object.fromEntries(lists),
        host,
      };
      file.write(`${printJson(toJsonValue(value))}\n`);
    },
  };
  return timings;
}
