import type { ModelFiles } from '../models/model-files.js';
import { planCodes } from './plan-codes.js';
import { bandRows } from './quantize-model.js';
import type { QuantizeSettings } from './settings.js';
import type { SelectedTensor, TensorSelection } from './tensor-selection.js';

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
 * Peak resident memory of quantising, calibration aside: a band of rows and its codes; with a Hessian what feedback moves, its
 * factor in f64 and two couplings in f32; the packed codes of the largest tensor, which are put together before they are
 * written.
 */
export function quantizingBytes(selected: readonly SelectedTensor[], hessian: boolean, bitsPerWeight: number): number {
  let most = 0;
  for (const { rows, columns, matrices } of selected) {
    const band = bandRows(rows / matrices, columns) * columns;
    const working = hessian ? 30 * band + 16 * columns * columns : 8 * band;
    most = Math.max(most, working + (3 * bitsPerWeight * rows * columns) / 8);
  }
  return Math.round(PROCESS_BYTES + most);
}

/**
 * Plans a run from headers alone.
 * @throws InputError when the rate cannot be reached, naming the range
 */
export function foresee(
  files: ModelFiles,
  selection: TensorSelection,
  settings: QuantizeSettings,
  hessian: boolean,
): Forecast {
  const { selected, kept } = selection;
  const measured = settings.allocation === 'uniform';
  const plan = planCodes({ files, selected, settings: measured ? settings : { ...settings, allocation: 'uniform' } });
  const weights = selected.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  const largest = selected.reduce((most, item) => Math.max(most, item.rows * item.columns), 0);
  const keptBytes = kept.reduce((sum, { tensor }) => sum + tensor.byteLength, 0);
  return {
    weights,
    sourceBytes: selected.reduce((sum, { tensor }) => sum + tensor.byteLength, keptBytes),
    bitsPerWeight: plan.bitsPerWeight,
    quantizedBytes: plan.bytes,
    modelBytes: plan.bytes + keptBytes,
    expectedSqnrDb: -10 * Math.log10(plan.expectedError),
    largestTensor: largest,
    measured,
    peakBytes: quantizingBytes(selected, hessian, plan.bitsPerWeight),
  };
}
