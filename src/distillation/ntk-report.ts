import type { Cell } from '../report/csv.js';
import type { KernelScales, NtkParametrisation } from './ntk-kernels.js';
import type { Comparison, Measurement } from './ntk-measurement.js';
import type { ModelsNeeded, PermutationLaw } from './ntk-permutations.js';

export const NTK_SCHEMA = 'distill-ntk';

/** What was predicted, and measured, at inputs with one number of ones. */
export interface NtkRow {
  readonly law: PermutationLaw;
  readonly needed: ModelsNeeded;
  readonly measured?: Measurement;
}

/** Everything about one number of bits. */
export interface NtkSize {
  readonly k: number;
  readonly rows: readonly NtkRow[];
  /** For the union over all nonzero inputs. */
  readonly allInputs: ModelsNeeded;
  readonly training?: {
    readonly width: number;
    readonly learningRate: number;
    readonly permutation: Int32Array;
    /** Steps of the slowest network, and the largest residual that one was left with. */
    readonly mostSteps: number;
    readonly largestResidual: number;
    /** Networks that used up their steps before the residual was small enough. */
    readonly unfinished: number;
  };
}

export interface NtkResult {
  readonly parametrisation: NtkParametrisation;
  readonly scales: KernelScales;
  readonly delta: number;
  readonly sizes: readonly NtkSize[];
  readonly warnings: readonly string[];
}

/** Which kernel the theory uses, in words. */
export const kernelWords = (parametrisation: NtkParametrisation): string =>
  parametrisation === 'ntk'
    ? 'Theta, the tangent kernel of both layers (NTK parametrisation)'
    : 'Sigma, regression on the last layer (standard parametrisation)';

/** Columns of `--out`: one row a number of bits and of ones. Without a simulation the measured ones are empty. */
export const LAW_COLUMNS = [
  'k',
  'ones',
  'mean_on',
  'mean_off',
  'variance',
  'std',
  'models_gaussian_union',
  'models_tail_bound',
  'all_inputs_gaussian_union',
  'all_inputs_tail_bound',
  'networks',
  'tests',
  'mean_on_measured',
  'mean_on_z',
  'mean_off_measured',
  'mean_off_z',
  'std_on_measured',
  'variance_on_z',
  'std_off_measured',
  'variance_off_z',
  'models_measured',
] as const;

/** Columns of `--table`: one row a size of ensemble. */
export const ACCURACY_COLUMNS = [
  'k',
  'ones',
  'models',
  'groups',
  'exact_share',
  'exact_share_se',
  'exact_share_predicted',
] as const;

const comparisonCells = (found: Comparison | undefined, root: boolean): Cell[] =>
  found ? [root ? Math.sqrt(found.measured) : found.measured, found.z] : [undefined, undefined];

/** Rows of `--out`. */
export function* lawRows({ sizes }: NtkResult): Generator<readonly Cell[]> {
  for (const { k, rows, allInputs } of sizes) {
    for (const { law, needed, measured } of rows) {
      yield [
        k,
        law.ones,
        law.meanOn,
        law.meanOff,
        law.variance,
        Math.sqrt(law.variance),
        needed.gaussianUnion,
        needed.tailBound,
        allInputs.gaussianUnion,
        allInputs.tailBound,
        measured?.networks,
        measured?.tests,
        ...comparisonCells(measured?.meanOn, false),
        ...comparisonCells(measured?.meanOff, false),
        ...comparisonCells(measured?.varianceOn, true),
        ...comparisonCells(measured?.varianceOff, true),
        measured?.modelsMeasured,
      ];
    }
  }
}

/** Rows of `--table`. */
export function* accuracyRows({ sizes }: NtkResult): Generator<readonly Cell[]> {
  for (const { k, rows } of sizes) {
    for (const { law, measured } of rows) {
      for (const { models, groups, exact, standardError, predicted } of measured?.accuracy ?? []) {
        yield [k, law.ones, models, groups, exact, standardError, predicted];
      }
    }
  }
}

const neededBody = ({ gaussianUnion, tailBound }: ModelsNeeded): object => ({
  gaussian_union: gaussianUnion ?? null,
  tail_bound: tailBound ?? null,
});

const comparisonBody = (found: Comparison | undefined): object | null =>
  found
    ? { measured: found.measured, standard_error: found.standardError, predicted: found.predicted, z: found.z }
    : null;

function measurementBody(found: Measurement): object {
  const { edges, on, off } = found.histogram;
  return {
    networks: found.networks,
    tests: found.tests,
    mean_on: comparisonBody(found.meanOn),
    mean_off: comparisonBody(found.meanOff),
    variance_on: comparisonBody(found.varianceOn),
    variance_off: comparisonBody(found.varianceOff),
    models_measured: found.modelsMeasured ?? null,
    accuracy: found.accuracy.map(({ models, groups, exact, standardError, predicted }) => ({
      models,
      groups,
      exact_share: exact,
      exact_share_standard_error: standardError ?? null,
      exact_share_predicted: predicted,
    })),
    histogram: { edges, on_counts: on, off_counts: off },
  };
}

/** The report of a run. */
export function ntkBody({ parametrisation, scales, delta, sizes, warnings }: NtkResult): object {
  return {
    parametrisation,
    kernel: kernelWords(parametrisation),
    sigma_w: scales.sigmaW,
    sigma_b: scales.sigmaB,
    delta,
    definitions: {
      models:
        'networks whose mean, cut at 0, is right: gaussian_union is the smallest N with m Q(mean_on sqrt(N/var)) + (k-m) Q(-mean_off sqrt(N/var)) <= delta; tail_bound is ceil(2 var ln(k/delta) / gap^2)',
      all_inputs: 'the same for every nonzero input at once: union over the inputs with two ones or more',
      variance: 'measured about the predicted mean; standard errors are over networks',
      models_measured: 'fewest first networks whose mean is right on a share 1 - delta of the tests',
    },
    sizes: sizes.map(({ k, rows, allInputs, training }) => ({
      k,
      all_inputs: neededBody(allInputs),
      training: training
        ? {
            width: training.width,
            learning_rate: training.learningRate,
            permutation: training.permutation,
            most_steps: training.mostSteps,
            largest_residual: training.largestResidual,
            unfinished_networks: training.unfinished,
          }
        : null,
      rows: rows.map(({ law, needed, measured }) => ({
        ones: law.ones,
        mean_on: law.meanOn,
        mean_off: law.meanOff ?? null,
        variance: law.variance,
        models: neededBody(needed),
        simulation: measured ? measurementBody(measured) : null,
      })),
    })),
    warnings,
  };
}
