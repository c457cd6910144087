import { groupAlignments } from '../../src/fusion/mixing/gradient-alignment.js';
import { dogeScores } from '../../src/fusion/mixing/rows/doge.js';
import { mixingMethod } from '../../src/fusion/mixing/rows/registry.js';
import type { Mixer, MixingParameters } from '../../src/fusion/mixing/types.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, numbers, shapeOf } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const proportions = Float64Array.from(numbers(inputs.p, 'p'));
  const k = proportions.length;
  const groups = Array.from({ length: k }, (_, j) => `group ${j}`);
  const list = (name: string): Float64Array => Float64Array.from(numbers(inputs[name], name));
  const create = (name: string, own: Partial<MixingParameters>, graph?: Float64Array): Mixer => {
    const method = mixingMethod(name);
    const parameters = { ...method.parameters(k), ...own } as MixingParameters;
    const start = { groups, parameters, seed: 0, ...(graph && { graph }) };
    if (name === 'doremi') return method.create({ ...start, initial: proportions, scores: list('previous_scores') });
    return method.create(name === 'doge' ? { ...start, initial: proportions } : start);
  };
  const doremi = create('doremi', {
    mu: number(inputs.doremi_mu, 'doremi_mu'),
    smoothing: number(inputs.smoothing, 'smoothing'),
  });
  const [, dims] = shapeOf(inputs.doge_grads, 'doge_grads');
  const alignments = groupAlignments(
    float64(inputs.doge_grads, 'doge_grads'),
    float64(inputs.doge_val_grad, 'doge_val_grad'),
    dims,
  );
  const learningRate = number(inputs.lr, 'lr');
  const [, clip] = numbers(inputs.doge_clip, 'doge_clip');
  const doge = create('doge', { mu: number(inputs.doge_mu, 'doge_mu'), clip });
  const skillIt = create(
    'skill-it',
    { eta: number(inputs.skillit_eta, 'skillit_eta'), window: number(inputs.skillit_window, 'skillit_window') },
    float64(inputs.skillit_A, 'skillit_A'),
  );
  const first = [...skillIt.proportions];
  const [evaluations] = shapeOf(inputs.skillit_losses, 'skillit_losses');
  const losses = float64(inputs.skillit_losses, 'skillit_losses');
  for (let e = 0; e < evaluations; e++) {
    skillIt.update({ kind: 'losses', losses: losses.slice(e * k, (e + 1) * k) });
  }
  const named: Record<string, unknown> = {
    stratified: [...create('stratified', {}).proportions],
    doremi: [...doremi.update({ kind: 'excess', losses: list('loss'), reference: list('reference_loss') }).proportions],
    doge: [...doge.update({ kind: 'alignments', ...alignments, learningRate }).proportions],
    doge_scores: [...dogeScores(alignments.inner, alignments.norms, { learningRate, clip })],
    skillit_initial: first,
    skillit: [...skillIt.proportions],
  };
  return Object.fromEntries(keysOf(wanted).map((key) => [key, named[key]]));
}
