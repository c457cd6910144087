import { InputError } from '../../errors.js';
import type { PanelValues } from '../../kernels/panel-operators.js';

/** Features of stocks by day. */
export interface Panel {
  /** Ascending. */
  readonly dates: readonly string[];
  readonly symbols: readonly string[];
  readonly features: readonly string[];
  /** One array `[days, stocks]` a feature, row-major, NaN where nothing is known. */
  readonly values: readonly PanelValues[];
}

/** The days `from` up to `to`, excluded. Nothing is copied. */
export function sliceDays(panel: Panel, from: number, to: number): Panel {
  const stocks = panel.symbols.length;
  if (!(from >= 0 && from <= to && to <= panel.dates.length)) {
    throw new RangeError(`days ${from} to ${to} of ${panel.dates.length}`);
  }
  return {
    ...panel,
    dates: panel.dates.slice(from, to),
    values: panel.values.map((values) => values.subarray(from * stocks, to * stocks)),
  };
}

/** What a panel of closes says of who is in it: a universe that nobody joins or leaves is one of survivors. */
export interface Universe {
  readonly stocks: number;
  /** Share of all (day, stock) pairs without a value in any feature. */
  readonly missingShare: number;
  /** Stocks that have values on the first and the last day and on every day between. */
  readonly alwaysPresent: number;
  /** Stocks whose values begin after the first day, and end before the last. */
  readonly entering: number;
  readonly leaving: number;
  /** Days with fewer than two stocks: they have no correlation. */
  readonly thinDays: number;
}

export function describeUniverse(panel: Panel): Universe {
  const days = panel.dates.length;
  const stocks = panel.symbols.length;
  const first = new Int32Array(stocks).fill(-1);
  const last = new Int32Array(stocks).fill(-1);
  const counts = new Int32Array(stocks);
  let thinDays = 0;
  let present = 0;
  for (let t = 0; t < days; t++) {
    let today = 0;
    for (let s = 0; s < stocks; s++) {
      if (!panel.values.some((values) => !Number.isNaN(values[t * stocks + s]))) continue;
      if (first[s] < 0) first[s] = t;
      last[s] = t;
      counts[s]++;
      today++;
    }
    present += today;
    if (today < 2) thinDays++;
  }
  let alwaysPresent = 0;
  let entering = 0;
  let leaving = 0;
  for (let s = 0; s < stocks; s++) {
    if (counts[s] === days) alwaysPresent++;
    if (first[s] > 0) entering++;
    if (last[s] >= 0 && last[s] < days - 1) leaving++;
  }
  return { stocks, missingShare: 1 - present / (days * stocks), alwaysPresent, entering, leaving, thinDays };
}

/** Scored days of the three parts: `[from, to)` each, a gap of at least the horizon between them. */
export interface Split {
  readonly train: readonly [number, number];
  readonly valid: readonly [number, number];
  readonly test: readonly [number, number];
}

/** How the days are divided. */
export interface SplitRequest {
  /** Days before the first scored day (windows read them) and behind the last (targets read them). */
  readonly backtrack: number;
  readonly future: number;
  /** Days left out between the parts. */
  readonly gap: number;
  /** First day of validation and test: dates, or shares of the scored days. */
  readonly validFrom?: string;
  readonly testFrom?: string;
  readonly shares: readonly [number, number, number];
}

/**
 * Divides the days into training, validation and test. The gap is taken from the end of the earlier part, so that no target
 * of it reads a day of the later one.
 * @throws InputError when a part keeps fewer than two days
 */
export function splitDays(dates: readonly string[], request: SplitRequest): Split {
  const first = request.backtrack;
  const end = dates.length - request.future;
  const scored = end - first;
  if (scored < 6) {
    throw new InputError(
      `${dates.length} days leave ${Math.max(0, scored)} to score behind ${request.backtrack} days of history and before ` +
        `${request.future} of the target; lower --backtrack or --horizon, or give more days`,
    );
  }
  const at = (date: string, flag: string): number => {
    const place = dates.findIndex((one) => one >= date);
    if (place < 0) throw new InputError(`${flag} ${date}: the panel ends on ${dates[dates.length - 1]}`);
    return place;
  };
  const total = request.shares[0] + request.shares[1] + request.shares[2];
  const validAt = request.validFrom
    ? at(request.validFrom, '--valid-from')
    : first + Math.round((scored * request.shares[0]) / total);
  const testAt = request.testFrom
    ? at(request.testFrom, '--test-from')
    : first + Math.round((scored * (request.shares[0] + request.shares[1])) / total);
  const split: Split = {
    train: [first, validAt - request.gap],
    valid: [validAt, testAt - request.gap],
    test: [testAt, end],
  };
  for (const [name, [from, to]] of Object.entries(split)) {
    if (to - from < 2) {
      throw new InputError(
        `the ${name} part has ${Math.max(0, to - from)} days of ${scored} (gap ${request.gap}); at least 2 are needed: ` +
          'choose other dates or shares, or a shorter horizon',
      );
    }
  }
  return split;
}
