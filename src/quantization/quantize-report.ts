import type { Cell } from '../report/csv.js';

/** Name of the report's schema. */
export const QUANTIZE_SCHEMA = 'quantize-pvq';

/** What was done to one tensor. Errors are of the stored rows against the source's; figures of a rotation are null without one. */
export interface TensorRecord {
  readonly name: string;
  readonly role: string;
  /** Layer, or -1 for embedding and head. */
  readonly layer: number;
  readonly rows: number;
  readonly columns: number;
  readonly group_length: number;
  readonly pulses: number;
  readonly super_group: number;
  readonly gain_bits: number;
  /** Bits of the index of one group: those of its word over the groups in it. */
  readonly index_bits: number;
  /** Index and gain alone, bits per weight. */
  readonly bpw_payload: number;
  /** All that is stored for the tensor, bits per weight. */
  readonly bpw_file: number;
  readonly bytes: number;
  /** Zeros that pad the last group of every row, as a part of all that is coded. */
  readonly padding_share: number;
  readonly mse: number;
  readonly sqnr_db: number;
  readonly cosine: number;
  readonly max_abs_error: number;
  /** Mean of 1 - c^2 over groups, c the cosine of a group and its code. */
  readonly shape_error: number;
  /** Squared error of the quantised gains relative to the energy of the tensor. */
  readonly gain_error: number;
  /** tr(E H E^T) of the errors, the part it is of tr(W H W^T), and the same without feedback and refits. */
  readonly hessian_loss: number | null;
  readonly hessian_loss_relative: number | null;
  readonly hessian_loss_relative_plain: number | null;
  readonly damping: number | null;
  readonly calibration_tokens: number | null;
  readonly dead_inputs: number | null;
  /** SQNR that no code of this payload can exceed on Gaussian weights, and how far below it the tensor is. */
  readonly shannon_sqnr_db: number;
  readonly below_shannon_db: number;
  /** The least part of tr(W H W^T) at this payload for Gaussian weights, by reverse water-filling over the spectrum of H. */
  readonly shannon_hessian_loss_relative: number | null;
  readonly rotation: string;
  readonly rotation_core: number | null;
  /** max |W_ij| sqrt(rows columns) / |W|_F before and after the rotation. */
  readonly incoherence_before: number;
  readonly incoherence_after: number;
  readonly kurtosis_before: number;
  readonly kurtosis_after: number;
  /** Largest distance between the distribution of squared group amplitudes and its Beta law. */
  readonly kolmogorov_beta: number | null;
  readonly zero_groups: number;
  /** Row scales that f16 cannot hold, so that the tensor's scales are f32. */
  readonly wide_scales: number;
}

/** Columns of the table of tensors: the fields of a {@link TensorRecord}. */
export const TENSOR_COLUMNS = [
  'name',
  'role',
  'layer',
  'rows',
  'columns',
  'group_length',
  'pulses',
  'super_group',
  'gain_bits',
  'index_bits',
  'bpw_payload',
  'bpw_file',
  'bytes',
  'padding_share',
  'mse',
  'sqnr_db',
  'cosine',
  'max_abs_error',
  'shape_error',
  'gain_error',
  'hessian_loss',
  'hessian_loss_relative',
  'hessian_loss_relative_plain',
  'damping',
  'calibration_tokens',
  'dead_inputs',
  'shannon_sqnr_db',
  'below_shannon_db',
  'shannon_hessian_loss_relative',
  'rotation',
  'rotation_core',
  'incoherence_before',
  'incoherence_after',
  'kurtosis_before',
  'kurtosis_after',
  'kolmogorov_beta',
  'zero_groups',
  'wide_scales',
] as const satisfies readonly (keyof TensorRecord)[];

export function tensorRow(record: TensorRecord): Cell[] {
  return TENSOR_COLUMNS.map((column) => record[column]);
}

/** Bytes of one kind of payload. */
export interface PartRecord {
  readonly part: 'index' | 'gain' | 'scale' | 'levels' | 'sign' | 'zero' | 'metadata';
  readonly bytes: number;
  readonly bits_per_weight: number;
}

/** What was quantised and kept, in bytes and bits. */
export interface SizeRecord {
  readonly tensors: number;
  readonly weights: number;
  readonly bytes: number;
  readonly bits_per_weight: number;
}

/** Body of the report, evaluation aside. */
export interface QuantizeBody {
  readonly model: { readonly path: string; readonly format: string; readonly type: string };
  readonly quantized: SizeRecord & {
    readonly payload_bits_per_weight: number;
    readonly asked_bits_per_weight: number | null;
  };
  readonly parts: readonly PartRecord[];
  readonly kept: SizeRecord;
  readonly whole_model: SizeRecord;
  /** Of all quantised weights together. */
  readonly sqnr_db: number;
  readonly cosine: number;
  readonly hessian_loss_relative: number | null;
  readonly mean_below_shannon_db: number;
  readonly zero_groups: number;
  readonly warnings: readonly string[];
  readonly tensors: readonly TensorRecord[];
}

/** Totals over tensors; shares of energy are weighed by the energy of each tensor. */
export function summarizeTensors(
  tensors: readonly TensorRecord[],
  energies: readonly number[],
  hessianEnergies: readonly (number | null)[],
): Pick<QuantizeBody, 'sqnr_db' | 'cosine' | 'hessian_loss_relative' | 'mean_below_shannon_db' | 'zero_groups'> {
  let energy = 0;
  let error = 0;
  let weights = 0;
  let cosine = 0;
  let below = 0;
  let loss = 0;
  let lossEnergy = 0;
  for (const [i, tensor] of tensors.entries()) {
    const count = tensor.rows * tensor.columns;
    energy += energies[i];
    error += tensor.mse * count;
    weights += count;
    cosine += tensor.cosine * count;
    below += tensor.below_shannon_db * count;
    const own = hessianEnergies[i];
    if (own === null || tensor.hessian_loss === null) continue;
    loss += tensor.hessian_loss;
    lossEnergy += own;
  }
  return {
    sqnr_db: 10 * Math.log10(energy / error),
    cosine: cosine / weights,
    hessian_loss_relative: lossEnergy > 0 ? loss / lossEnergy : null,
    mean_below_shannon_db: below / weights,
    zero_groups: tensors.reduce((sum, tensor) => sum + tensor.zero_groups, 0),
  };
}
