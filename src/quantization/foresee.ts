import type { ModelFiles } from '../models/model-files.js';
import { planCodes } from './plan-codes.js';
import type { QuantizeSettings } from './settings.js';
import type { TensorSelection } from './tensor-selection.js';

/** What a run would do, before a tensor is read. */
export interface Forecast {
  readonly weights: number;
  readonly sourceBytes: number;
  readonly bitsPerWeight: number;
  readonly quantizedBytes: number;
  readonly modelBytes: number;
  readonly expectedSqnrDb: number;
  readonly largestTensor: number;
  /** False where the allocation has to measure first; sizes are then those of an allocation by weights. */
  readonly measured: boolean;
  /** Of quantising, calibration aside. */
  readonly peakBytes: number;
}

/** Node, the runtime and the kernels without any weights. */
const PROCESS_BYTES = 120e6;

/**
 * Plans a run from headers alone.
 * @throws InputError when the rate cannot be reached, naming the range
 */
export function foresee(files: ModelFiles, selection: TensorSelection, settings: QuantizeSettings): Forecast {
  const { selected, kept } = selection;
  const measured = settings.allocation === 'uniform';
  const plan = planCodes({ files, selected, settings: measured ? settings : { ...settings, allocation: 'uniform' } });
  const weights = selected.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  const matrices = selected.map(({ rows, columns, matrices: count }) => (rows * columns) / count);
  const largest = selected.reduce((most, item) => Math.max(most, item.rows * item.columns), 0);
  const keptBytes = kept.reduce((sum, { tensor }) => sum + tensor.byteLength, 0);
  const hessian = ['hessian', 'relative', 'kl'].includes(settings.allocation);
  const widest = selected.reduce((most, { columns }) => Math.max(most, columns), 0);
  const matrix = matrices.reduce((most, count) => Math.max(most, count), 0);
  // Rows as f32 and their codes; with a Hessian, what feedback moves, its factor in f64 and the coupling in f32.
  const working = hessian ? 26 * matrix + 12 * widest * widest : 6 * matrix;
  return {
    weights,
    sourceBytes: selected.reduce((sum, { tensor }) => sum + tensor.byteLength, keptBytes),
    bitsPerWeight: plan.bitsPerWeight,
    quantizedBytes: plan.bytes,
    modelBytes: plan.bytes + keptBytes,
    expectedSqnrDb: -10 * Math.log10(plan.expectedError),
    largestTensor: largest,
    measured,
    peakBytes: Math.round(PROCESS_BYTES + working + largest / 2),
  };
}
