import type { SingleBar } from 'cli-progress';

/** Where progress goes: a terminal, or nothing is shown. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  write(text: string): boolean;
}

export interface ProgressOptions {
  readonly stream: ProgressStream;
  readonly quiet: boolean;
  /** What is counted, in the plural: `tokens`, `documents`. */
  readonly unit: string;
  /** How many there will be, where it is known. */
  readonly total?: number;
  /** Milliseconds, increasing; the edge gives the clock. */
  readonly now: () => number;
}

export interface Progress {
  /** `done` of `total` are done; `label` says what is at work now. */
  update(done: number, label?: string): void;
  setTotal(total: number): void;
  /** Clears the line. */
  stop(): void;
}

const SILENT: Progress = { update: () => undefined, setTotal: () => undefined, stop: () => undefined };

/** `1234567` as `1.23M`. */
function shortNumber(value: number): string {
  for (const [factor, letter] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const) {
    if (value >= factor) return `${(value / factor).toPrecision(3)}${letter}`;
  }
  return value >= 10 || Number.isInteger(value) ? String(Math.round(value)) : value.toPrecision(2);
}

/** Seconds as `1h02m`, `3m04s` or `5s`. */
function shortDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const pad = (value: number): string => String(value).padStart(2, '0');
  if (whole >= 3600) return `${Math.floor(whole / 3600)}h${pad(Math.floor((whole % 3600) / 60))}m`;
  return whole >= 60 ? `${Math.floor(whole / 60)}m${pad(whole % 60)}s` : `${whole}s`;
}

/** One line of progress: count, share, rate and time left. Public for tests; `elapsedSeconds` since the start. */
export function progressLine(
  done: number,
  total: number | undefined,
  elapsedSeconds: number,
  unit: string,
  label: string,
): string {
  const rate = elapsedSeconds > 0 ? done / elapsedSeconds : 0;
  const speed = rate > 0 ? `  ${shortNumber(rate)} ${unit}/s` : '';
  const tail = label === '' ? '' : `  ${label}`;
  if (total === undefined || total <= 0) return `${shortNumber(done)} ${unit}${speed}${tail}`;
  const left = rate > 0 ? `  ${shortDuration((total - done) / rate)} left` : '';
  const share = `${String(Math.floor((100 * done) / total)).padStart(3)}%`;
  return `${share}  ${shortNumber(done)} of ${shortNumber(total)} ${unit}${speed}${left}${tail}`;
}

/**
 * Progress on a terminal; nothing is loaded or written when the stream is no terminal or `quiet` is set.
 */
export async function createProgress(options: ProgressOptions): Promise<Progress> {
  const { stream, unit, now } = options;
  if (options.quiet || !stream.isTTY) return SILENT;
  const { default: cliProgress } = await import('cli-progress');
  const start = now();
  let total = options.total;
  let label = '';
  const bar: SingleBar = new cliProgress.SingleBar({
    stream: stream as NodeJS.WritableStream,
    clearOnComplete: true,
    fps: 5,
    // Signals belong to the edge, which also removes unfinished outputs; the cursor stays, so nothing needs restoring.
    gracefulExit: false,
    hideCursor: false,
    barsize: 20,
    format: (settings, params) => {
      const line = progressLine(params.value, total, (now() - start) / 1000, unit, label);
      if (total === undefined || total <= 0) return line;
      const filled = Math.round(Math.min(1, params.progress) * (settings.barsize ?? 20));
      return `${'#'.repeat(filled)}${'.'.repeat((settings.barsize ?? 20) - filled)} ${line}`;
    },
  });
  bar.start(total ?? 0, 0);
  return {
    update(done, text) {
      if (text !== undefined) label = text;
      bar.update(done);
    },
    setTotal(value) {
      total = value;
      bar.setTotal(value);
    },
    stop: () => bar.stop(),
  };
}
