import type { LocalFeatures } from './local-aggregator.js';
import { BEST_SINGLE, EQUAL_AVERAGE, MEDIAN_ENSEMBLE, POOL } from './methods/combinations.js';
import { COARSE, FINE, MEDIUM } from './methods/global.js';
import { LOCAL_COARSE, LOCAL_FINE, LOCAL_MEDIUM } from './methods/local.js';
import type { Forecasts, WeightForm } from './weight-forms.js';
import type { MarginKind, Trial } from './weight-search.js';

/** How weights are fitted. */
export interface FitSettings {
  readonly solver: 'lp' | 'eg' | 'adam';
  readonly tolerance: number;
  readonly normalised: boolean;
  readonly margins: MarginKind;
  /** Factor of the crossing penalty; drawn by the search when absent. */
  readonly crossing?: number;
  readonly smoothing: number;
  readonly trials: number;
  readonly validationShare: number;
  readonly mostSteps: number;
  readonly seed: number;
  readonly threads: number;
}

/** What a method is fitted on. */
export interface FitProblem {
  readonly forecasts: Forecasts;
  readonly models: readonly string[];
  readonly levels: Float64Array;
  readonly outcomes: Float64Array;
  /** Rows of the fit. */
  readonly rows: Int32Array;
  /** Standardised by the rows of the fit; absent without feature columns. */
  readonly features?: LocalFeatures;
  readonly settings: FitSettings;
  progress(done: number, of: number): void;
}

/** Facts of a fit, for the report; those that a method has. */
export interface FitFacts {
  readonly objective: number;
  /** Lower bound of the optimum (lp, eg). */
  readonly bound?: number;
  readonly rounds?: number;
  readonly cells?: number;
  readonly incomplete?: number;
  /** best-single: which. */
  readonly model?: string;
  readonly trials?: readonly Trial[];
  readonly chosen?: Trial;
  readonly parameters?: number;
}

/** A fitted method. */
export interface FittedMethod {
  /** Quantiles `[rows.length, m]`, which may cross. */
  predict(rows: Int32Array): Float64Array;
  readonly facts: FitFacts;
  readonly weights?: { readonly form: WeightForm; readonly values: Float64Array };
  /** Mean of row-wise weights over rows, for local methods. */
  meanWeights?(rows: Int32Array): { readonly form: WeightForm; readonly values: Float64Array };
}

/** A way to make one set of quantiles of several. */
export interface Method {
  readonly name: string;
  readonly summary: string;
  readonly needsFeatures?: boolean;
  fit(problem: FitProblem): FittedMethod;
}

export const METHODS: readonly Method[] = [
  BEST_SINGLE,
  EQUAL_AVERAGE,
  MEDIAN_ENSEMBLE,
  POOL,
  COARSE,
  MEDIUM,
  FINE,
  LOCAL_COARSE,
  LOCAL_MEDIUM,
  LOCAL_FINE,
];
