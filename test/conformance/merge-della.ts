import { della } from '../../src/fusion/merge/methods/della.js';
import { unpackMask } from '../../src/fusion/merge/methods/random-mask.js';
import { byRank, type RankedSparsified, type Rescale } from '../../src/fusion/merge/methods/sparsify.js';
import { sparseTaskVectors } from '../../src/fusion/merge/methods/task-vectors.js';
import type { Json } from './harness.js';
import { stored, taskOf } from './merge-task.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

const RESCALED: Readonly<Record<string, Rescale>> = { rescaled_l1: 'l1', rescaled_inverse_prob: 'inverse' };

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const delta = stored(inputs.delta, 'delta');
  const uniforms = float64(inputs.uniforms, 'uniforms');
  const rows = shapeOf(inputs.uniforms, 'uniforms');
  const density = number(inputs.density, 'density');
  const epsilon = number(inputs.epsilon, 'epsilon');
  const base = { ...delta, bytes: new Uint8Array(delta.bytes.length) };
  const task = taskOf(della, [delta], { base, perModel: [{ weight: 1, density, epsilon }] });
  let found: RankedSparsified | undefined;
  const vectorsOf = (rescale: Rescale): Float64Array => {
    const [vector] = sparseTaskVectors(task, (target) => {
      found = byRank(target, density, epsilon, rescale, uniforms);
      return found;
    });
    return vector;
  };
  const plain = vectorsOf('none');
  const mask = found?.sparsity.mask;
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    if (key === 'keep_prob') result[key] = tensor(rows, found?.probabilities ?? []);
    else if (key === 'mask') result[key] = tensor(rows, mask === undefined ? [] : unpackMask(mask, uniforms.length));
    else if (key === 'masked' || key === 'no_rescale') result[key] = tensor(delta.shape, plain);
    else if (key in RESCALED) result[key] = tensor(delta.shape, vectorsOf(RESCALED[key]));
  }
  return result;
}
