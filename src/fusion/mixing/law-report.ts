import type { Cell } from '../../report/csv.js';
import type { Figure } from '../../report/plots/figure.js';
import { HALF_WIDTH } from '../../report/plots/panel.js';
import { scatterChart } from '../../report/plots/scatter-chart.js';
import { type MatrixAgreement, matrixAgreement, type Prediction, predictionOf } from './fidelity.js';
import { type LinearLaw, type LogLinearLaw, lawConstants, predictLinear, predictLosses } from './law-fit.js';
import { type LawOptimum, linearOptimum } from './law-optimum.js';
import type { LeftOut } from './leave-one-out.js';
import { matrixMap } from './mix-plot.js';
import type { Sweep } from './types.js';

/** Schema of the report of fitted laws. */
export const FIT_SCHEMA = 'fuse-mix-fit';

/** Columns of the table of runs. */
export const FIT_COLUMNS = [
  'run',
  'group',
  'loss_nats',
  'log_linear_nats',
  'linear_nats',
  'log_linear_left_out_nats',
  'linear_left_out_nats',
] as const;

interface PredictionBody {
  readonly mse: number;
  readonly r2: number;
  readonly group_r2: ArrayLike<number>;
}

interface OptimumBody {
  readonly mixture: ArrayLike<number>;
  readonly mean_loss_nats: number;
  readonly losses_nats: ArrayLike<number>;
}

/** Body of the report. */
export interface FitBody {
  readonly runs: number;
  readonly sources: readonly string[];
  readonly evaluated: readonly string[];
  /** L_i(p) = b + a exp(sum_j M_j p_j); M sums to 0. */
  readonly log_linear: {
    readonly fit: PredictionBody;
    readonly left_out: PredictionBody | null;
    readonly optimum: OptimumBody & { readonly convex: boolean };
    readonly groups: readonly {
      readonly group: string;
      readonly a: number | null;
      readonly b: number | null;
      readonly M: ArrayLike<number>;
    }[];
  };
  /** L_i(p) = sum_j B_ji p_j. */
  readonly linear: {
    readonly fit: PredictionBody;
    readonly left_out: PredictionBody | null;
    readonly optimum: OptimumBody;
    /** Row = source, column = evaluated group. */
    readonly coefficients: readonly ArrayLike<number>[];
  };
  /** The mixture of the sweep with the least mean loss. */
  readonly best_run: { readonly run: number; readonly mean_loss_nats: number };
  /** A_ij = L0_i - B_ji, row = evaluated group; null without start losses. */
  readonly measured_A: readonly ArrayLike<number>[] | null;
  readonly agreement: {
    readonly compared_with: string;
    readonly cosine: number | null;
    readonly centred_cosine: number;
    readonly column_cosine: number | null;
    readonly centred_column_cosine: number;
    readonly column_rank_correlation: number;
  } | null;
}

/** What a fit found. */
export interface FitResult {
  readonly law: LogLinearLaw;
  readonly linear: LinearLaw;
  readonly optimum: LawOptimum;
  readonly leftOut: LeftOut | null;
}

/** A matrix of a method beside the sweep, and the losses before it. */
export interface ComparedMatrix {
  readonly name: string;
  /** [k, k], row = evaluated group. */
  readonly matrix: Float64Array;
}

const rowsOf = (matrix: Float64Array, width: number): Float64Array[] =>
  Array.from({ length: matrix.length / width }, (_, r) => matrix.slice(r * width, (r + 1) * width));

const bodyOf = ({ mse, r2, groupR2 }: Prediction): PredictionBody => ({ mse, r2, group_r2: groupR2 });

/**
 * A of a linear dynamic law L_i(p) = L0_i - sum_j A_ij p_j from the straight law of a sweep of runs that all began with losses L0.
 */
export function measuredMatrix({ coefficients, evaluated }: LinearLaw, start: Float64Array): Float64Array {
  const k = evaluated.length;
  const matrix = new Float64Array(k * k);
  for (let i = 0; i < k; i++) for (let j = 0; j < k; j++) matrix[i * k + j] = start[i] - coefficients[j * k + i];
  return matrix;
}

/** The report of a fit; `start` [evaluated] and `compared` where they are known. */
export function fitBody(
  sweep: Sweep,
  { law, linear, optimum, leftOut }: FitResult,
  start?: Float64Array,
  compared?: ComparedMatrix,
): FitBody {
  const { count, sources, evaluated, mixtures, losses } = sweep;
  const width = evaluated.length;
  const judged = (predicted: Float64Array): PredictionBody => bodyOf(predictionOf(predicted, losses, width));
  const best = linearOptimum(linear);
  const runMeans = Array.from({ length: count }, (_, r) => {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += losses[r * width + i];
    return sum / width;
  });
  const bestRun = runMeans.indexOf(Math.min(...runMeans));
  const square = start && measuredMatrix(linear, start);
  return {
    runs: count,
    sources,
    evaluated,
    log_linear: {
      fit: judged(predictLosses(law, mixtures)),
      left_out: leftOut && judged(leftOut.logLinear),
      optimum: {
        mixture: optimum.mixture,
        mean_loss_nats: optimum.meanLoss,
        losses_nats: optimum.losses,
        convex: optimum.convex,
      },
      groups: law.groups.map((group, i) => ({ group: evaluated[i], ...lawConstants(group, law.centre) })),
    },
    linear: {
      fit: judged(predictLinear(linear, mixtures)),
      left_out: leftOut && judged(leftOut.linear),
      optimum: { mixture: best.mixture, mean_loss_nats: best.meanLoss, losses_nats: best.losses },
      coefficients: rowsOf(linear.coefficients, width),
    },
    best_run: { run: bestRun + 1, mean_loss_nats: runMeans[bestRun] },
    measured_A: square ? rowsOf(square, width) : null,
    agreement: compared ? agreementBody(compared, linear, start) : null,
  };
}

/** Without losses before the runs, A is known but for a constant a row: the figures that do not see it remain. */
function agreementBody(
  { name, matrix }: ComparedMatrix,
  linear: LinearLaw,
  start: Float64Array | undefined,
): FitBody['agreement'] {
  const k = linear.evaluated.length;
  const found: MatrixAgreement = matrixAgreement(matrix, measuredMatrix(linear, start ?? new Float64Array(k)), k);
  return {
    compared_with: name,
    cosine: start ? found.cosine : null,
    centred_cosine: found.centredCosine,
    column_cosine: start ? found.columnCosine : null,
    centred_column_cosine: found.centredColumnCosine,
    column_rank_correlation: found.columnRankCorrelation,
  };
}

/** Rows of the table: measured and predicted losses of every run. */
export function* fitRows(sweep: Sweep, { law, linear, leftOut }: FitResult): Generator<readonly Cell[]> {
  const { count, evaluated, mixtures, losses } = sweep;
  const width = evaluated.length;
  const [bent, straight] = [predictLosses(law, mixtures), predictLinear(linear, mixtures)];
  for (let r = 0; r < count; r++) {
    for (let i = 0; i < width; i++) {
      const e = r * width + i;
      yield [r + 1, evaluated[i], losses[e], bent[e], straight[e], leftOut?.logLinear[e], leftOut?.linear[e]];
    }
  }
}

/** Predicted beside measured losses of both laws, and the measured matrix. */
export async function fitFigure(body: FitBody, sweep: Sweep, result: FitResult, subtitle: string): Promise<Figure> {
  const { evaluated, losses, mixtures } = sweep;
  const width = evaluated.length;
  const ends = [Math.min(...losses), Math.max(...losses)];
  const chart = (title: string, note: string, predicted: Float64Array) =>
    scatterChart({
      title,
      note,
      xLabel: 'measured loss (nats)',
      yLabel: 'predicted loss (nats)',
      series: evaluated.map((name, i) => ({
        name,
        x: losses.filter((_, e) => e % width === i),
        y: predicted.filter((_, e) => e % width === i),
      })),
      curve: { label: 'equal', x: ends, y: ends },
      width: HALF_WIDTH,
    });
  const { leftOut } = result;
  const note = leftOut ? 'Each run as a law without it predicts it.' : 'Laws fitted to all runs.';
  return {
    title: 'Mixing laws',
    subtitle,
    headline: [
      { label: 'Runs', value: body.runs },
      { label: 'R2, log-linear', value: body.log_linear.fit.r2 },
      ...(body.log_linear.left_out ? [{ label: 'left out', value: body.log_linear.left_out.r2 }] : []),
      { label: 'R2, linear', value: body.linear.fit.r2 },
      ...(body.linear.left_out ? [{ label: 'left out', value: body.linear.left_out.r2 }] : []),
      { label: 'Least predicted mean loss', value: body.log_linear.optimum.mean_loss_nats, unit: 'nats' },
    ],
    panels: [
      await chart('Log-linear law', note, leftOut?.logLinear ?? predictLosses(result.law, mixtures)),
      await chart('Linear law', note, leftOut?.linear ?? predictLinear(result.linear, mixtures)),
      ...(body.measured_A ? [await matrixMap(evaluated, body.measured_A, 'Measured mixing matrix')] : []),
    ],
    sections: [],
  };
}
