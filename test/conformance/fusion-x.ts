import { InputError } from '../../src/errors.js';
import { mixDense } from '../../src/fusion/knowledge/fusion-functions.js';
import {
  feedbackLoss,
  gateSize,
  gateTensors,
  importanceOf,
  selectSources,
  sequenceScores,
} from '../../src/fusion/knowledge/selector.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const [batch, models] = shapeOf(inputs.ce, 'ce');
  const ces = float64(inputs.ce, 'ce');
  const threshold = number(inputs.threshold, 'threshold');
  const gate = new Float64Array(gateSize(models));
  const given = inputs.gate as { [key: string]: Json };
  for (const { name, offset } of gateTensors(models)) gate.set(float64(given[name], name), offset);
  if (inputs.axes !== 'B,S,V,K') throw new InputError(`axes ${String(inputs.axes)}`);
  const [, length, vocabulary] = shapeOf(inputs.distributions, 'distributions');
  const distributions = float64(inputs.distributions, 'distributions');

  const selections = Array.from({ length: batch }, (_, b) =>
    selectSources(gate, sequenceScores(ces.subarray(b * models, (b + 1) * models)), threshold),
  );
  const importance = importanceOf(
    selections.map(({ weights }) => weights),
    models,
  );
  const perModel = (of: (b: number) => ArrayLike<number>, dtype?: string): unknown =>
    tensor(
      [batch, models],
      selections.flatMap((_, b) => Array.from(of(b))),
      dtype,
    );
  const size = length * vocabulary;
  const found: Record<string, () => unknown> = {
    scores: () => perModel((b) => selections[b].scores),
    probabilities: () => perModel((b) => selections[b].probabilities),
    selected: () => ({
      shape: [batch, models],
      dtype: 'bool',
      data: selections.flatMap(({ kept }) => Array.from(kept, (one) => one === 1)),
    }),
    weights: () => perModel((b) => selections[b].weights),
    target: () =>
      tensor(
        [batch, length, vocabulary],
        selections.flatMap(({ weights }, b) =>
          Array.from(mixDense(distributions.subarray(b * size * models, (b + 1) * size * models), weights)),
        ),
      ),
    fused_score: () =>
      tensor(
        [batch],
        selections.map(({ fusedScore }) => fusedScore),
      ),
    importance: () => tensor([models], importance),
    feedback_cv2: () => feedbackLoss(importance).value,
  };
  return Object.fromEntries(keysOf(wanted).flatMap((key) => (key in found ? [[key, found[key]()]] : [])));
}
