import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import { type FeatureSource, loadMatrix } from '../formats/feature-matrix.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { activationOf, tabulatedActivation } from './activation-bases.js';
import type { JetFunction } from './activation-expression.js';
import { type SearchResult, type SearchSettings, searchActivation } from './activation-search.js';
import { type DensityKind, fittedDensity, type InputDensity, kernelDensity, normalDensity } from './input-density.js';

export interface ActivationArguments {
  /** A name or an expression, or a table of two columns: input and output. */
  readonly base: { readonly text: string } | { readonly table: FeatureSource };
  readonly density: DensityKind;
  /** Of the density `normal`. */
  readonly mean: number;
  readonly deviation: number;
  /** Recorded pre-activations; all entries count alike. */
  readonly recorded?: FeatureSource;
  readonly settings: SearchSettings;
}

export interface ActivationResult extends SearchResult {
  readonly density: Pick<InputDensity, 'kind' | 'mean' | 'deviation'> & { readonly bandwidth: number | null };
  readonly recorded: number;
}

async function baseOf(base: ActivationArguments['base']): Promise<JetFunction> {
  if ('text' in base) return activationOf(base.text);
  const matrix = await openFeatures(base.table);
  try {
    if (matrix.columns !== 2) {
      throw new InputError(
        `${matrix.name}: a table of an activation has two columns, input and output; this one has ${matrix.columns}`,
      );
    }
    const values = loadMatrix(matrix);
    const column = (c: number): Float64Array => Float64Array.from({ length: matrix.rows }, (_, r) => values[2 * r + c]);
    return tabulatedActivation(column(0), column(1), matrix.name);
  } finally {
    matrix.close();
  }
}

/** All entries, ascending. */
async function recordedOf(source: FeatureSource | undefined): Promise<Float64Array | undefined> {
  if (source === undefined) return undefined;
  const matrix = await openFeatures(source);
  try {
    const values = Float64Array.from(loadMatrix(matrix)).sort();
    // NaN sorts to the end, infinities to both.
    const bad = [values[0], values[values.length - 1]].find((value) => !Number.isFinite(value));
    if (bad !== undefined) throw new InputError(`${matrix.name}: holds ${bad}; recorded inputs must be finite`);
    return values;
  } finally {
    matrix.close();
  }
}

function densityOf(args: ActivationArguments, recorded: Float64Array | undefined): InputDensity {
  if (args.density === 'normal') return normalDensity(args.mean, args.deviation);
  if (!recorded) throw new InputError(`a ${args.density} density needs recorded inputs`);
  return args.density === 'fitted' ? fittedDensity(recorded) : kernelDensity(recorded);
}

/** Runs the search on the density that is asked for. */
export async function runActivationSearch(args: ActivationArguments): Promise<ActivationResult> {
  const recorded = await recordedOf(args.recorded);
  const density = densityOf(args, recorded);
  const found = searchActivation(await baseOf(args.base), density, args.settings, recorded);
  const { kind, mean, deviation, bandwidth } = density;
  return {
    ...found,
    density: { kind, mean, deviation, bandwidth: bandwidth ?? null },
    recorded: recorded?.length ?? 0,
  };
}

export const SEARCH_ACTIVATION: ComputeReference<ActivationArguments, ActivationResult> = {
  module: import.meta.url,
  job: runActivationSearch,
};
