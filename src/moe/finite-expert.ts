import { InputError } from '../errors.js';
import type { ExpertModel } from './expert-model.js';
import { expertParts, type ReadExpert, readExpert } from './expert-reader.js';

/**
 * Reads an expert that will be computed with.
 * @throws InputError naming the tensor and the entry that is NaN or infinite
 */
export function readFiniteExpert(model: ExpertModel, index: number, e: number, threads?: number): ReadExpert {
  const expert = readExpert(model, index, e, threads);
  for (const role of ['gate', 'up', 'down'] as const) {
    const matrix = expert[role];
    if (matrix === undefined) continue;
    let sum = 0;
    for (let i = 0; i < matrix.length; i++) sum += matrix[i] - matrix[i];
    if (sum === 0) continue;
    const at = matrix.findIndex((value) => !Number.isFinite(value));
    const part = expertParts(model.layers[index], model.layout, e).find((each) => each.role === role);
    const columns = part?.columns ?? matrix.length;
    throw new InputError(
      `${model.path}: tensor "${part?.tensor}": expert ${e}, ${role}: row ${Math.floor(at / columns)}, column ` +
        `${at % columns} is ${matrix[at]}: experts with such weights are not merged; mend the checkpoint`,
    );
  }
  return expert;
}
