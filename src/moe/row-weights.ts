import { InputError } from '../errors.js';
import type { RowWeights } from './compress-matrix.js';
import type { ExpertMatrixPlan } from './compress-plan.js';
import { openGradients } from './expert-gradients.js';
import type { ExpertModel } from './expert-model.js';
import type { ReadExpert } from './expert-reader.js';
import type { MoeStatistics } from './statistics-file.js';

/** Gives what the rows of a matrix are weighed with; undefined where they are scored by their size alone. */
export interface RowWeightSource {
  readonly weightsOf: (matrix: ExpertMatrixPlan) => RowWeights | undefined;
  close(): void;
}

export const MAGNITUDES: RowWeightSource = { weightsOf: () => undefined, close: () => undefined };

/**
 * Norms of the inputs of each matrix over the tokens that its expert saw, from statistics of this model.
 * @throws InputError when the statistics do not say what experts saw, or have another layout of layers and experts
 */
export function activationWeights(model: ExpertModel, { layers }: MoeStatistics): RowWeightSource {
  const outputs = model.layers.map(({ layer, name, experts, shape }) => {
    const found = layers.find(({ routing }) => routing.layer === layer);
    if (found === undefined) throw new InputError(`${name}: the statistics have no such layer; calibrate this model`);
    if (found.outputs === undefined) {
      throw new InputError(
        `${name}: the statistics watched the router alone; run merge-moe calibrate with --outputs routed or all`,
      );
    }
    const { inputSquareSum, hiddenSquareSum } = found.outputs;
    if (inputSquareSum.length !== experts * shape.hidden || hiddenSquareSum.length !== experts * shape.width) {
      throw new InputError(`${name}: the statistics are of other experts; calibrate this model`);
    }
    return { counts: found.routing.counts, inputSquareSum, hiddenSquareSum };
  });
  return {
    weightsOf({ index, expert, role, columns }) {
      const { counts, inputSquareSum, hiddenSquareSum } = outputs[index];
      const sums = role === 'down' ? hiddenSquareSum : inputSquareSum;
      const values = sums.slice(expert * columns, (expert + 1) * columns).map(Math.sqrt);
      return { values, unused: counts[expert] === 0 };
    },
    close: () => undefined,
  };
}

/**
 * dLoss/dW of every expert matrix from safetensors files with the names and shapes of the weights: the mean of |dLoss/dW| over
 * the files, so that a score is the mean of |S dLoss/dS|.
 * @throws InputError naming the file and the tensor that is missing or has another shape
 */
export function gradientWeights(model: ExpertModel, files: readonly string[], threads?: number): RowWeightSource {
  const gradients = openGradients(model, files);
  let held: { readonly key: string; readonly experts: readonly ReadExpert[] } | undefined;
  return {
    weightsOf({ index, expert, role, rows, columns }) {
      const key = `${index}.${expert}`;
      if (held?.key !== key) held = { key, experts: gradients.read(index, expert, threads) };
      const values = new Float64Array(rows * columns);
      for (const read of held.experts) {
        const gradient = read[role];
        if (gradient === undefined) continue;
        for (let i = 0; i < values.length; i++) values[i] += Math.abs(gradient[i]) / held.experts.length;
      }
      return { values, unused: values.every((value) => value === 0) };
    },
    close: () => gradients.close(),
  };
}
