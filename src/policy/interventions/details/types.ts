import type { HeatMap } from '../../../report/plots/heat-map.js';
import type { HistogramChart } from '../../../report/plots/histogram.js';
import type { LineChart } from '../../../report/plots/line-chart.js';
import type { ScatterChart } from '../../../report/plots/scatter-chart.js';
import type { Rollouts } from '../../rollouts/types.js';
import type { InterventionContext, InterventionSettings } from '../types.js';

/** A cell; `undefined` and NaN are empty. Truth values and lists stand in lines of JSON alone. */
export type DetailValue = number | string | boolean | readonly number[] | undefined;

/** A table or a file of JSON lines that `--details` writes beside the report: `<output>.<name>.csv` or `.jsonl`. */
export interface DetailTable {
  readonly name: string;
  readonly title: string;
  readonly form: 'csv' | 'jsonl';
  /** Columns of a table with their units in their names; keys of the lines. */
  readonly columns: readonly string[];
}

/** Where rows go as they are made, in the order of the columns: they are never held. */
export interface DetailSink {
  row(table: string, values: readonly DetailValue[]): void;
}

/** One panel of the figure of the details: plain data, drawn by `drawDetails` beside the job. */
export type DetailChart =
  | { readonly kind: 'lines'; readonly chart: LineChart }
  | { readonly kind: 'scatter'; readonly chart: ScatterChart }
  | { readonly kind: 'histogram'; readonly chart: HistogramChart }
  | { readonly kind: 'heat-map'; readonly chart: HeatMap };

export type DetailJson =
  | number
  | string
  | boolean
  | null
  | readonly DetailJson[]
  | { readonly [key: string]: DetailJson };

export interface DetailOutcome {
  /** Part of the report: every figure with its unit in its key; null where it is not defined. */
  readonly report: { readonly [key: string]: DetailJson };
  readonly charts: readonly DetailChart[];
  readonly warnings: readonly string[];
}

/**
 * What a method says of a whole dump beside its column of the comparison: records, steps, windows, prefixes. It reads the dump
 * step by step and writes rows as it goes.
 */
export interface MethodDetails {
  readonly tables: readonly DetailTable[];
  /** @throws InputError where the dump lacks what the details need */
  run(
    rollouts: Rollouts,
    settings: InterventionSettings,
    context: InterventionContext,
    sink: DetailSink,
  ): DetailOutcome;
}
