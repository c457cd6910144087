import { spearman } from '../../linalg/correlation.js';
import { upperGammaRatio } from '../../linalg/special-functions.js';

/** When an entropy counts as collapsed or surged. */
export interface AlarmRules {
  /** Collapse: the median of the last window is at most this share of that of the first. */
  readonly collapseRatio: number;
  /** Surge: the largest median of a window is at least this multiple of that of a window before it. */
  readonly surgeRatio: number;
  /** Steps of a window, as a share of all steps; at least one step. */
  readonly window: number;
}

export const USUAL_ALARMS: AlarmRules = { collapseRatio: 0.3, surgeRatio: 1.5, window: 0.1 };

export interface EntropyAlarm {
  readonly kind: 'collapse' | 'surge';
  /** Medians of the windows that are compared, nats. */
  readonly before: number;
  readonly after: number;
  /** Collapse: the first step from which entropy stays at or below the bound. Surge: the step of the highest window's end. */
  readonly step: number;
}

/** A quantity by step that users look at when entropy moves. */
export interface SuspectSeries {
  readonly name: string;
  readonly values: Float64Array;
  /** From this level on the quantity is remarkable in itself; absent where there is no such level. */
  readonly level?: number;
}

export interface Suspect {
  readonly name: string;
  /** Spearman's correlation of the quantity at a step with the change of entropy to the next one. */
  readonly correlation: number;
  /** Two-sided, by Fisher's transformation; steps are taken as independent. */
  readonly pValue: number;
  readonly pairs: number;
  /** Medians over the first and the last window. */
  readonly first: number;
  readonly last: number;
  readonly level: number | null;
  /** Share of steps at or above the level. */
  readonly stepsAtLevel: number | null;
}

function median(values: Float64Array): number {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort();
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function windowLength(steps: number, share: number): number {
  return Math.max(1, Math.ceil(share * steps));
}

function collapse(steps: Float64Array, entropy: Float64Array, rules: AlarmRules): EntropyAlarm | undefined {
  const width = windowLength(entropy.length, rules.window);
  const before = median(entropy.subarray(0, width));
  const after = median(entropy.subarray(entropy.length - width));
  const bound = rules.collapseRatio * before;
  if (!(after <= bound)) return undefined;
  let first = entropy.length - 1;
  while (first > 0 && entropy[first - 1] <= bound) first--;
  return { kind: 'collapse', before, after, step: steps[first] };
}

function surge(steps: Float64Array, entropy: Float64Array, rules: AlarmRules): EntropyAlarm | undefined {
  const width = windowLength(entropy.length, rules.window);
  let found: EntropyAlarm | undefined;
  let lowest = Number.POSITIVE_INFINITY;
  for (let end = width; end <= entropy.length; end++) {
    const level = median(entropy.subarray(end - width, end));
    // Windows that are compared do not overlap.
    if (end >= 2 * width) lowest = Math.min(lowest, median(entropy.subarray(end - 2 * width, end - width)));
    const ratio = level / lowest;
    if (ratio >= rules.surgeRatio && (found === undefined || ratio > found.after / found.before)) {
      found = { kind: 'surge', before: lowest, after: level, step: steps[end - 1] };
    }
  }
  return found;
}

/**
 * Collapse and surge of the entropies of at least four steps, by windows of medians, so that one step decides nothing.
 * @param entropy [steps], nats.
 */
export function entropyAlarms(
  steps: Float64Array,
  entropy: Float64Array,
  rules: AlarmRules = USUAL_ALARMS,
): EntropyAlarm[] {
  if (entropy.length < 4) return [];
  return [collapse(steps, entropy, rules), surge(steps, entropy, rules)].filter((alarm) => alarm !== undefined);
}

/** Two-sided p value of a rank correlation of n pairs, by Fisher's transformation with the variance 1.06 / (n - 3). */
function correlationP(r: number, n: number): number {
  if (n < 4 || Number.isNaN(r)) return Number.NaN;
  const z = Math.atanh(Math.min(1 - 1e-15, Math.abs(r))) * Math.sqrt((n - 3) / 1.06);
  return z === 0 ? 1 : upperGammaRatio(0.5, (z * z) / 2);
}

function suspectOf({ name, values, level }: SuspectSeries, change: Float64Array, window: number): Suspect {
  const at: number[] = [];
  for (let t = 0; t < change.length; t++) if (Number.isFinite(values[t]) && Number.isFinite(change[t])) at.push(t);
  const correlation =
    at.length < 4
      ? Number.NaN
      : spearman(
          Float64Array.from(at, (t) => values[t]),
          Float64Array.from(at, (t) => change[t]),
        );
  const width = windowLength(values.length, window);
  const known = values.filter((value) => !Number.isNaN(value));
  return {
    name,
    correlation,
    pValue: correlationP(correlation, at.length),
    pairs: at.length,
    first: median(values.subarray(0, width)),
    last: median(values.subarray(values.length - width)),
    level: level ?? null,
    stepsAtLevel: level === undefined ? null : known.filter((value) => value >= level).length / known.length,
  };
}

/**
 * Ranks quantities by how well their rank at a step goes with the change of entropy to the next: |Spearman|, unknown ones last.
 * An association, not a cause.
 */
export function rankSuspects(
  series: readonly SuspectSeries[],
  change: Float64Array,
  window = USUAL_ALARMS.window,
): Suspect[] {
  const strength = ({ correlation }: Suspect): number => (Number.isNaN(correlation) ? -1 : Math.abs(correlation));
  return series
    .map((one) => suspectOf(one, change, window))
    .sort((a, b) => strength(b) - strength(a) || (a.name < b.name ? -1 : 1));
}
