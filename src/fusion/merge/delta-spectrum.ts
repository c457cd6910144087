import { elementCount } from '../../formats/tensor.js';
import { widenToF32 } from '../../kernels/dtypes.js';
import { addSecondMoment, symmetricRankK } from '../../kernels/gemm.js';
import { symmetricSpectrum } from '../../kernels/symmetric-spectrum.js';
import { rankMeasures, singularValuesOfGram } from '../../linalg/rank-measures.js';
import type { MergeTask } from './types.js';

/** Singular values s of a task vector as a matrix, as a distribution p = s / sum s. */
export type DeltaSpectrum = {
  /** -sum p ln p. */
  readonly spectral_entropy_nats: number;
  /** exp of it (Roy & Vetterli 2007). */
  readonly effective_rank: number;
};

/** Spectra of the task vectors of one tensor, whose rows may come in bands. */
export interface DeltaSpectra {
  add(task: MergeTask): void;
  /** By input; null for the base and for a task vector of zeros. */
  finish(): (DeltaSpectrum | null)[];
}

/** Bytes that spectra of a tensor take beside the merge of `rows` rows of it. */
export function spectrumBytes(shape: readonly number[], rows: number, inputs: number): number {
  const [height, width] = shape;
  const side = Math.min(height, width);
  return 4 * rows * width + 8 * side * side * (inputs + 1);
}

/** Whether the spectra can be taken: a matrix whose rows all come at once, or that is at least as high as wide. */
export function hasSpectrum(shape: readonly number[], largestSide: number, cut: boolean): boolean {
  if (shape.length !== 2) return false;
  const [rows, columns] = shape;
  const side = Math.min(rows, columns);
  return side >= 2 && side <= largestSide && (!cut || columns <= rows);
}

/** Second moments in the smaller side, in double; their eigenvalues are the squares of the singular values. */
export function deltaSpectra(shape: readonly number[], threads: number): DeltaSpectra {
  const [rows, columns] = shape;
  const side = Math.min(rows, columns);
  const moments = new Map<number, Float64Array>();
  let inputs = 0;
  return {
    add(task): void {
      const base = task.inputs.find(({ isBase }) => isBase);
      inputs = task.inputs.length;
      if (base === undefined) return;
      const elements = elementCount(task.output.shape);
      const origin = new Float32Array(elements);
      widenToF32(base.tensor.bytes, base.tensor.dtype, origin, threads);
      for (const [i, input] of task.inputs.entries()) {
        if (input.isBase) continue;
        const delta = new Float32Array(elements);
        widenToF32(input.tensor.bytes, input.tensor.dtype, delta, threads);
        for (let k = 0; k < elements; k++) delta[k] -= origin[k];
        const moment = moments.get(i) ?? new Float64Array(side * side);
        moments.set(i, moment);
        if (columns <= rows) addSecondMoment(delta, elements / columns, columns, moment, { threads });
        else symmetricRankK(delta, moment, { n: rows, k: columns }, { threads });
      }
    },
    finish: () => Array.from({ length: inputs }, (_, i) => spectrumOf(moments.get(i), side, threads)),
  };
}

function spectrumOf(moment: Float64Array | undefined, side: number, threads: number): DeltaSpectrum | null {
  if (moment === undefined) return null;
  for (let i = 0; i < side; i++) for (let j = 0; j < i; j++) moment[j * side + i] = moment[i * side + j];
  if (!moment.every(Number.isFinite)) return null;
  const values = singularValuesOfGram(symmetricSpectrum(moment, side, { threads }), side);
  const { effectiveRank } = rankMeasures(values);
  if (Number.isNaN(effectiveRank)) return null;
  return { spectral_entropy_nats: Math.log(effectiveRank), effective_rank: effectiveRank };
}
