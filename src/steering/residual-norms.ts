import { InputError } from '../errors.js';
import type { LanguageModel } from '../models/language-model.js';

/**
 * Mean Euclidean norm of residual l at the last token of each prompt, for every block: what the strength of a vector is
 * measured against.
 * @returns [layers]
 */
export async function meanResidualNorms(model: LanguageModel, prompts: readonly Int32Array[]): Promise<Float64Array> {
  const { engine } = model;
  if (!engine) throw new InputError(`${model.info.path}: its layers cannot be reached; give a directory or a .gguf`);
  const { hiddenSize, layers } = engine.model;
  const sums = new Float64Array(layers.length);
  for (const prompt of prompts) {
    await engine.forward({
      windows: [prompt],
      onResidual(index, groups) {
        if (index === 0) return;
        const { stream, length } = groups[0];
        const last = stream.subarray((length - 1) * hiddenSize, length * hiddenSize);
        let squares = 0;
        for (const x of last) squares += x * x;
        sums[index - 1] += Math.sqrt(squares);
      },
    });
  }
  return sums.map((sum) => sum / prompts.length);
}
