import { rotateRows } from '../../kernels/hadamard.js';
import { planRotation, tensorSeed } from '../../linalg/hadamard.js';
import { feedbackCoupling } from '../block-coupling.js';
import { type BlockQuantizer, feedErrors } from '../error-feedback.js';
import { clearDeadInputs, factorHessian } from '../hessian.js';
import { type Baseline, type BaselineSettings, type FittedQuantizer, type RowMatrix, reconstruct } from './baseline.js';

/** A baseline, on rotated rows or not, with errors fed forward or not. */
export interface BaselineMethod {
  /** `rtn`, `rtn-feedback`, `rotated-rtn`, `rotated-rtn-feedback`. */
  readonly name: string;
  readonly title: string;
  readonly baseline: Baseline;
  /** Rows are turned by the randomised Hadamard matrix of the tensor, quantised and turned back. */
  readonly rotated: boolean;
  /** GPTQ's order, from the Hessian of the tensor's inputs. */
  readonly feedback: boolean;
}

/** Second moment of the inputs of one matrix. */
export interface InputMoments {
  /** H = (2 / N) sum x x^T, [columns, columns]. */
  readonly hessian: Float64Array;
  readonly tokens: number;
}

/** One stored tensor to quantise: a matrix, or a stack of equal ones. */
export interface QuantizationTask extends RowMatrix {
  readonly name: string;
  /** Matrices of the stack, each with `rows / matrices` rows; default 1. */
  readonly matrices?: number;
  /** Seed of the run; the rotation's follows from it and the name. */
  readonly seed: bigint;
  /** Inputs of a matrix of the stack, where they are known. */
  readonly moments?: (matrix: number) => InputMoments | undefined;
  readonly damping?: number;
  readonly threads?: number;
}

export interface QuantizedTensor {
  /** [rows, columns], in the frame of the weights. */
  readonly decoded: Float32Array;
  /** Exact bits as stored: codes, scales, zero points, rotation signs, padding. */
  readonly storedBits: number;
  readonly warnings: readonly string[];
}

/** Exact bits of a tensor under a setting, before it is seen. */
export function methodBits(method: BaselineMethod, settings: BaselineSettings, rows: number, columns: number): number {
  const signs = method.rotated ? 8 * planRotation(columns, 0n).signs.length : 0;
  return method.baseline.storedBits(settings, rows, columns) + signs;
}

/**
 * Quantises one tensor. Without inputs for a matrix, a method with feedback rounds it plainly and says so.
 * @throws InputError for a Hessian that has no factor
 */
export function quantizeTensor(
  method: BaselineMethod,
  settings: BaselineSettings,
  task: QuantizationTask,
): QuantizedTensor {
  const { name, rows, columns, threads } = task;
  const matrices = task.matrices ?? 1;
  const own = rows / matrices;
  const rotation = method.rotated ? planRotation(columns, tensorSeed(task.seed, name)) : undefined;
  const warnings: string[] = [];
  const decoded = new Float32Array(rows * columns);
  let storedBits = rotation ? 8 * rotation.signs.length : 0;
  for (let m = 0; m < matrices; m++) {
    const span = [m * own * columns, (m + 1) * own * columns] as const;
    const weights = task.weights.slice(...span);
    const moments = method.feedback ? task.moments?.(m) : undefined;
    const label = matrices > 1 ? `${name} (matrix ${m})` : name;
    if (!moments || moments.tokens === 0) {
      if (method.feedback) warnings.push(`${label}: no calibration tokens; rounded without feedback`);
      if (rotation) rotateRows(weights, own, rotation, 'forward', threads);
      const fitted = method.baseline.fit({ weights, rows: own, columns }, settings, threads);
      reconstruct(fitted, { weights, rows: own, columns }, decoded.subarray(...span));
      storedBits += fitted.storedBits;
      continue;
    }
    const factor = factorHessian(moments.hessian.slice(), columns, {
      tensor: label,
      tokens: moments.tokens,
      ...(rotation && { rotation }),
      ...(task.damping !== undefined && { damping: task.damping }),
      ...(threads !== undefined && { threads }),
    });
    warnings.push(...factor.warnings);
    clearDeadInputs(weights, own, columns, factor.deadInputs);
    if (rotation) rotateRows(weights, own, rotation, 'forward', threads);
    const { quantizer, bits } = feedbackQuantizer(method.baseline, settings, { weights, rows: own, columns }, threads);
    const coupling = feedbackCoupling(factor, quantizer.blockColumns, new Float32Array(columns * columns), threads);
    decoded.set(
      feedErrors(weights, own, coupling, quantizer, { ...(threads !== undefined && { threads }) }).decoded,
      span[0],
    );
    storedBits += bits();
  }
  if (rotation) rotateRows(decoded, rows, rotation, 'inverse', threads);
  return { decoded, storedBits, warnings };
}

/** Scales from the original weights, or, where groups are independent, chosen as feedback reaches each group. */
function feedbackQuantizer(
  baseline: Baseline,
  settings: BaselineSettings,
  matrix: RowMatrix,
  threads: number | undefined,
): { quantizer: BlockQuantizer; bits: () => number } {
  const { rows, columns } = matrix;
  const groupColumns = baseline.groupColumns?.(settings, columns);
  if (groupColumns === undefined) {
    const fitted = baseline.fit(matrix, settings, threads);
    return { quantizer: fitted, bits: () => fitted.storedBits };
  }
  let start = 0;
  let bits = baseline.storedBits(settings, rows, columns);
  let fitted: FittedQuantizer | undefined;
  return {
    bits: () => bits,
    quantizer: {
      blockColumns: 1,
      groupColumns,
      prepareGroup(target, count, column0, width) {
        start = column0;
        fitted = baseline.fit(
          { weights: target.slice(0, count * width), rows: count, columns: width },
          settings,
          threads,
        );
        // Only scales that f16 cannot hold make a group longer than foreseen.
        bits += Math.max(0, fitted.storedBits - baseline.storedBits(settings, count, width));
      },
      quantize(target, count, column0, width, out) {
        fitted?.quantize(target, count, column0 - start, width, out);
      },
    },
  };
}
