import { searchPulses } from '../../kernels/pulse-search.js';
import type { BlockCoupling } from '../block-coupling.js';
import { type BlockQuantizer, feedErrors } from '../error-feedback.js';
import { constraintsOf, type ExportFormat } from './export-format.js';
import { fitSteps, type StepOptions, type StepRows } from './step-rows.js';

/** The policy `step` as a quantizer of blocks, and what it has stored. */
export interface StepQuantizer extends BlockQuantizer<Float32Array> {
  readonly groupColumns: number;
  prepareGroup(target: Float32Array, rows: number, column0: number, width: number): void;
  readonly coded: StepRows;
}

/**
 * Quantises blocks of D columns to `base code y`. The base of a superblock is fitted to its columns as feedback has made
 * them when its first block comes; every block then takes the nearest point and whole multiple.
 */
export function stepQuantizer(
  rows: number,
  columns: number,
  format: ExportFormat,
  { groupLength: D, pulses: K, mode = 'best', threads }: Omit<StepOptions, 'importance'>,
): StepQuantizer {
  const { cap, negativeCap, largestStep = 0, baseColumns = columns } = constraintsOf(format);
  if (largestStep === 0 || columns % baseColumns !== 0 || baseColumns % D !== 0) {
    throw new RangeError(`${format} does not code rows of ${columns} in groups of ${D} by steps`);
  }
  const coded: StepRows = {
    policy: 'step',
    rows,
    columns,
    groupLength: D,
    pulses: K,
    points: new Int8Array(rows * columns),
    codes: new Uint8Array((rows * columns) / D),
    bases: new Float32Array((rows * columns) / baseColumns),
    baseColumns,
  };
  const search = (x: Float32Array, width: number): Int16Array => {
    const pulses = new Int16Array(rows * width);
    const options = { D, K, mode, cap, negativeCap, ...(threads !== undefined && { threads }) };
    searchPulses(x.subarray(0, rows * width), rows, width, options, pulses);
    return pulses;
  };
  const perRow = columns / baseColumns;
  return {
    blockColumns: D,
    groupColumns: baseColumns,
    coded,
    prepareGroup(target, _, column0, width) {
      const pulses = search(target, width);
      const products = new Float64Array(width / D);
      const squares = new Float64Array(width / D);
      for (let r = 0; r < rows; r++) {
        for (let g = 0; g < products.length; g++) {
          [products[g], squares[g]] = moments(target, pulses, r * width + g * D, D);
        }
        coded.bases[r * perRow + column0 / baseColumns] = fitSteps(products, squares, largestStep).base;
      }
    },
    quantize(target, _, column0, width, out) {
      const pulses = search(target, width);
      for (let r = 0; r < rows; r++) {
        const base = coded.bases[r * perRow + Math.floor(column0 / baseColumns)];
        const [xy, yy] = moments(target, pulses, r * width, width);
        const code = base > 0 ? Math.min(largestStep, Math.max(0, Math.round(xy / yy / base))) : 0;
        coded.codes[(r * columns + column0) / D] = code;
        for (let c = 0; c < width; c++) {
          const y = pulses[r * width + c];
          coded.points[r * columns + column0 + c] = y;
          out[r * width + c] = Math.fround(base * code) * y;
        }
      }
    },
  };
}

/** <x, y> and ||y||^2 of a group. */
function moments(x: Float32Array, y: Int16Array, at: number, width: number): [number, number] {
  let xy = 0;
  let yy = 0;
  for (let i = at; i < at + width; i++) {
    xy += x[i] * y[i];
    yy += y[i] * y[i];
  }
  return [xy, yy];
}

/**
 * Codes weights by steps with error feedback through a Hessian: `coupling` is that of its factor at blocks of D
 * (`feedbackCoupling`). Returns the code and `(W - What) H (W - What)^T` summed over rows.
 */
export function encodeStepRowsWithFeedback(
  weights: Float32Array,
  rows: number,
  columns: number,
  format: ExportFormat,
  coupling: BlockCoupling<Float32Array>,
  options: Omit<StepOptions, 'importance'>,
): { readonly coded: StepRows; readonly loss: number } {
  const quantizer = stepQuantizer(rows, columns, format, options);
  const { threads } = options;
  const { losses } = feedErrors(weights, rows, coupling, quantizer, threads === undefined ? {} : { threads });
  return { coded: quantizer.coded, loss: losses.reduce((sum, loss) => sum + loss, 0) };
}
