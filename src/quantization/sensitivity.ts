import { rotateRows } from '../kernels/hadamard.js';
import { planRotation, tensorSeed } from '../linalg/hadamard.js';
import { clearDeadInputs, factorHessian } from './hessian.js';
import { timesFactor } from './refits.js';

/** What the errors of a matrix cost, measured before anything is quantised. */
export interface Sensitivity {
  /** Sum of squares of the weights. */
  readonly energy: number;
  /**
   * Expected tr(E H E^T) for errors of relative energy one that are white after the rotation; as error feedback
   * leaves it, sum over blocks of tr(M_b) / n, or plain, tr(H) / n, times the energy. Null without a Hessian.
   */
  readonly loss: number | null;
  /** tr(W H W^T). Null without a Hessian. */
  readonly outputEnergy: number | null;
}

export interface SensitivityOptions {
  /** Named in messages; its rotation is the one that the tensor will have. */
  readonly tensor: string;
  readonly seed: bigint;
  readonly rotated: boolean;
  readonly errorFeedback: boolean;
  /** D of the blocks of the feedback; the result hardly depends on it. */
  readonly blockColumns: number;
  readonly damping: number;
  readonly threads?: number;
}

/** Sum of squares, in order. */
export function energyOf(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * values[i];
  return sum;
}

/**
 * Measures one matrix W [rows, n] with the Hessian of its inputs, both as stored; both are overwritten.
 * With H = R R^T a block's error e costs e M_b e^T, M_b = R_bb R_bb^T, once those before it are fed forward, so white
 * errors cost their energy times the mean of tr(M_b) over columns (specification of quantisation, section 6).
 * @throws InputError when the Hessian has no factor
 */
export function measureSensitivity(
  weights: Float32Array,
  rows: number,
  n: number,
  hessian: { readonly H: Float64Array; readonly tokens: number },
  options: SensitivityOptions,
): Sensitivity {
  const { tensor, threads } = options;
  const rotation = options.rotated ? planRotation(n, tensorSeed(options.seed, tensor)) : undefined;
  const factor = factorHessian(hessian.H, n, {
    tensor,
    tokens: hessian.tokens,
    damping: options.damping,
    ...(rotation && { rotation }),
    ...(threads !== undefined && { threads }),
  });
  clearDeadInputs(weights, rows, n, factor.deadInputs);
  if (rotation) rotateRows(weights, rows, rotation, 'forward', threads);
  const energy = energyOf(weights);
  const outputs = timesFactor(weights, rows, factor, threads);
  const meanCost = options.errorFeedback
    ? meanBlockTrace(factor.packed, n, options.blockColumns)
    : factor.diagonal.reduce((sum, value) => sum + value, 0) / n;
  return { energy, loss: energy * meanCost, outputEnergy: energyOf(outputs) };
}

/** Sum over blocks of the squared entries of R_bb, which is that of tr(M_b), a column. */
function meanBlockTrace(packed: Float64Array, n: number, blockColumns: number): number {
  let sum = 0;
  for (let at = 0; at < n; at += blockColumns) {
    const end = Math.min(at + blockColumns, n);
    for (let i = at; i < end; i++) for (let j = i; j < end; j++) sum += packed[i * n + j] ** 2;
  }
  return sum / n;
}
