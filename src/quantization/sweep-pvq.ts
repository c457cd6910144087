import { DEFAULT_SEARCH } from './encode-rows.js';
import type { QuantizeBody } from './quantize-report.js';
import type { TensorPoint } from './rate-distortion.js';
import { DEFAULT_FEEDBACK, DEFAULT_GROUP_LENGTHS, type QuantizeSettings } from './settings.js';
import type { PvqVariant } from './sweep-plan.js';
import { shannonDecibels } from './tensor-statistics.js';

/** Settings of the pipeline for a variant at a rate: the defaults of `quantize-pvq` but for what the variant says. */
export function pvqSettings(
  { rotation, hessian, allocation }: PvqVariant,
  bitsPerWeight: number,
  run: { readonly seed: string; readonly damping: number },
): QuantizeSettings {
  return {
    rate: { kind: 'bpw', bitsPerWeight },
    groupLengths: DEFAULT_GROUP_LENGTHS,
    superGroup: 'auto',
    rotation,
    levels: rotation === 'none' ? 'data' : 'lloyd',
    gain: 'projection',
    search: DEFAULT_SEARCH,
    zeroGroups: 'code',
    allocation,
    // Groups of rotated rows matter alike; without a rotation important ones come first.
    feedback: { ...DEFAULT_FEEDBACK, damping: run.damping, actOrder: hessian && rotation === 'none' },
    seed: run.seed,
  };
}

/** Tensors of the pipeline as points of a sweep. */
export function pvqPoints({ tensors }: QuantizeBody, method: string): TensorPoint[] {
  return tensors.map((tensor) => {
    const count = tensor.rows * tensor.columns;
    const error = tensor.mse * count;
    return {
      name: tensor.name,
      role: tensor.role,
      layer: tensor.layer,
      rows: tensor.rows,
      columns: tensor.columns,
      method,
      stored_bits: 8 * tensor.bytes,
      bits_per_weight: tensor.bpw_file,
      mse: tensor.mse,
      sqnr_db: tensor.sqnr_db,
      energy: error * 10 ** (tensor.sqnr_db / 10),
      error,
      hessian_loss: tensor.hessian_loss,
      hessian_loss_relative: tensor.hessian_loss_relative,
      shannon_sqnr_db: shannonDecibels(tensor.bpw_file),
    };
  });
}
