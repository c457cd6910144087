import type { Cell } from '../report/csv.js';
import type { ReportObject } from '../report/values.js';
import type { TensorPoint } from './rate-distortion.js';
import type { LeftOut } from './sweep-plan.js';
import { shannonDecibels } from './tensor-statistics.js';

export const SWEEP_SCHEMA = 'quantize-pvq-sweep';

/** What the predictions of a candidate are beside those of the original. */
export interface SweepEvaluation {
  readonly tokens: number;
  readonly perplexity: number;
  readonly perplexity_se: number;
  readonly perplexity_ratio: number;
  readonly perplexity_ratio_se: number;
  readonly mean_kl_nats: number;
  readonly mean_kl_nats_se: number;
  readonly p99_kl_nats: number;
  readonly top1_agreement: number;
  readonly top1_agreement_se: number;
}

/** Accuracy on questions with choices. */
export interface SweepChoices {
  readonly questions: number;
  readonly accuracy: number;
  readonly accuracy_se: number;
}

/** One quantised model. */
export interface SweepRow {
  readonly id: string;
  readonly method: string;
  readonly title: string;
  readonly asked_bits_per_weight: readonly number[];
  /** All that is stored for the quantised tensors, bits per weight. */
  readonly bits_per_weight: number;
  readonly quantized_bytes: number;
  /** Of the whole model, kept tensors included. */
  readonly model_bytes: number;
  readonly model_bits_per_weight: number;
  readonly mse: number;
  readonly sqnr_db: number;
  readonly shannon_sqnr_db: number;
  /** Sum of tr(E H E^T) over the sum of tr(W H W^T); null without Hessians. */
  readonly hessian_loss_relative: number | null;
  readonly evaluation: SweepEvaluation | null;
  readonly choices: SweepChoices | null;
  readonly warnings: readonly string[];
  readonly tensors: readonly TensorPoint[];
}

export interface SweepBody {
  readonly model: { readonly path: string; readonly format: string; readonly type: string };
  readonly source: {
    readonly quantized: boolean;
    /** Types of the selected tensors as the source stores them. */
    readonly types: readonly string[];
    readonly bits_per_weight: number;
    readonly model_bytes: number;
    readonly model_weights: number;
  };
  readonly selected: {
    readonly tensors: number;
    readonly weights: number;
    readonly kept_tensors: number;
    readonly kept_bytes: number;
  };
  readonly convention: ReportObject | null;
  readonly documents: number;
  readonly scored_tokens: number;
  readonly base: { readonly perplexity: number; readonly perplexity_se: number } | null;
  readonly base_choices: SweepChoices | null;
  readonly calibration_tokens: number | null;
  readonly rows: readonly SweepRow[];
  readonly left_out: readonly LeftOut[];
}

/** Columns of the table: a row a candidate, then a row for each that was left out. */
export const SWEEP_COLUMNS = [
  'method',
  'setting',
  'asked_bits_per_weight',
  'status',
  'bits_per_weight',
  'quantized_bytes',
  'model_bytes',
  'model_bits_per_weight',
  'mse',
  'sqnr_db',
  'shannon_sqnr_db',
  'hessian_loss_relative',
  'tokens',
  'perplexity',
  'perplexity_se',
  'perplexity_ratio',
  'perplexity_ratio_se',
  'mean_kl_nats',
  'mean_kl_nats_se',
  'p99_kl_nats',
  'top1_agreement',
  'top1_agreement_se',
  'choices_accuracy',
  'choices_accuracy_se',
  'note',
] as const;

export const SWEEP_TENSOR_COLUMNS = [
  'setting',
  'name',
  'role',
  'layer',
  'rows',
  'columns',
  'method',
  'bits_per_weight',
  'mse',
  'sqnr_db',
  'shannon_sqnr_db',
  'hessian_loss',
  'hessian_loss_relative',
] as const;

/** Totals of a candidate over its tensors. */
export function sweepTotals(
  points: readonly TensorPoint[],
  kept: { readonly bytes: number; readonly weights: number },
): Pick<
  SweepRow,
  | 'bits_per_weight'
  | 'quantized_bytes'
  | 'model_bytes'
  | 'model_bits_per_weight'
  | 'mse'
  | 'sqnr_db'
  | 'shannon_sqnr_db'
  | 'hessian_loss_relative'
> {
  let weights = 0;
  let bits = 0;
  let energy = 0;
  let error = 0;
  let loss = 0;
  let whole = 0;
  for (const point of points) {
    weights += point.rows * point.columns;
    bits += point.stored_bits;
    energy += point.energy;
    error += point.error;
    if (point.hessian_loss === null || point.hessian_loss_relative === null) continue;
    loss += point.hessian_loss;
    whole += point.hessian_loss_relative > 0 ? point.hessian_loss / point.hessian_loss_relative : 0;
  }
  const quantized = Math.ceil(bits / 8);
  const model = quantized + kept.bytes;
  return {
    bits_per_weight: bits / weights,
    quantized_bytes: quantized,
    model_bytes: model,
    model_bits_per_weight: (8 * model) / (weights + kept.weights),
    mse: error / weights,
    sqnr_db: 10 * Math.log10(energy / error),
    shannon_sqnr_db: shannonDecibels(bits / weights),
    hessian_loss_relative: whole > 0 ? loss / whole : null,
  };
}

export function* sweepTableRows(body: Pick<SweepBody, 'rows' | 'left_out'>): Generator<Cell[]> {
  for (const row of body.rows) {
    const { evaluation, choices } = row;
    yield [
      row.method,
      row.id,
      row.asked_bits_per_weight.join(' '),
      'measured',
      row.bits_per_weight,
      row.quantized_bytes,
      row.model_bytes,
      row.model_bits_per_weight,
      row.mse,
      row.sqnr_db,
      row.shannon_sqnr_db,
      row.hessian_loss_relative,
      evaluation?.tokens ?? null,
      evaluation?.perplexity ?? null,
      evaluation?.perplexity_se ?? null,
      evaluation?.perplexity_ratio ?? null,
      evaluation?.perplexity_ratio_se ?? null,
      evaluation?.mean_kl_nats ?? null,
      evaluation?.mean_kl_nats_se ?? null,
      evaluation?.p99_kl_nats ?? null,
      evaluation?.top1_agreement ?? null,
      evaluation?.top1_agreement_se ?? null,
      choices?.accuracy ?? null,
      choices?.accuracy_se ?? null,
      row.warnings.length > 0 ? `${row.warnings.length} warnings in the report` : null,
    ];
  }
  for (const left of body.left_out) {
    const empty = new Array<Cell>(SWEEP_COLUMNS.length - 6).fill(null);
    const [method] = left.method.split(':');
    yield [method, left.method, left.asked_bits_per_weight, 'left out', left.bits_per_weight, ...empty, left.reason];
  }
}

export function* sweepTensorRows({ rows }: Pick<SweepBody, 'rows'>): Generator<Cell[]> {
  for (const row of rows) {
    for (const point of row.tensors) {
      yield [
        row.id,
        point.name,
        point.role,
        point.layer,
        point.rows,
        point.columns,
        point.method,
        point.bits_per_weight,
        point.mse,
        point.sqnr_db,
        point.shannon_sqnr_db,
        point.hessian_loss,
        point.hessian_loss_relative,
      ];
    }
  }
}
