import {
  avgCeWeights,
  decayedLambda,
  type FusionLoss,
  fusionRowLoss,
  labelRowLoss,
  minCeChoice,
  minCeWeights,
  mixDistributions,
  rewards,
  rowDistribution,
  type SparseDistribution,
} from '../../src/fusion/knowledge/fusion-functions.js';
import { IGNORED } from '../../src/training/types.js';
import type { Json } from './harness.js';
import { float64, int32, keysOf, listed, number, shapeOf, tensor } from './tensors.js';

interface TopK {
  readonly logits: Json[][];
  readonly indices: Json[][];
}

const topK = (value: Json): TopK => value as unknown as TopK;

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const vocabulary = number(inputs.vocab_size, 'vocab_size');
  const temperature = number(inputs.temperature, 'temperature');
  const ces = (inputs.sequence_ce as Json[]).map((row) => listed(row, 'sequence_ce'));
  const models = ces.length;
  const [batch, length] = shapeOf(inputs.student_logits, 'student_logits');
  const student = float64(inputs.student_logits, 'student_logits');
  const labels = int32(inputs.labels, 'labels');
  const attention = float64(inputs.attention_mask, 'attention_mask');
  const lambda = number(inputs.lm_loss_weight, 'lm_loss_weight');

  const stored = [topK(inputs.pivot_topk), ...(inputs.sources_topk as Json[]).map(topK)];
  const distribution = (model: number, b: number, t: number): SparseDistribution => {
    const logits = listed(stored[model].logits[b][t], 'logits');
    if (logits.length === 0) return distribution(0, b, t);
    return rowDistribution(Int32Array.from(listed(stored[model].indices[b][t], 'indices')), logits, temperature);
  };
  const ofSequence = (b: number): number[] => ces.map((row) => row[b]);
  const weightsOf = { mince: minCeWeights, avgce: avgCeWeights };
  const target = (strategy: 'mince' | 'avgce', b: number, t: number): SparseDistribution =>
    mixDistributions(
      stored.map((_, model) => distribution(model, b, t)),
      weightsOf[strategy](ofSequence(b)),
    );
  const logitsAt = (b: number, t: number): Float64Array =>
    student.subarray((b * length + t) * vocabulary, (b * length + t + 1) * vocabulary);
  const next = (b: number, t: number): number => (t + 1 < length ? labels[b * length + t + 1] : IGNORED);

  const meanOver = (counts: (b: number, t: number) => boolean, value: (b: number, t: number) => number): number => {
    let sum = 0;
    let count = 0;
    for (let b = 0; b < batch; b++) {
      for (let t = 0; t < length; t++) {
        if (!counts(b, t)) continue;
        sum += value(b, t);
        count++;
      }
    }
    return sum / count;
  };
  const attended = (b: number, t: number): boolean => attention[b * length + t] !== 0;
  const labelled = (b: number, t: number): boolean => next(b, t) !== IGNORED;
  const fusion = (strategy: 'mince' | 'avgce', kind: FusionLoss, counts = attended): number =>
    meanOver(counts, (b, t) => fusionRowLoss(logitsAt(b, t), target(strategy, b, t), kind));
  const lm = (): number => meanOver(labelled, (b, t) => labelRowLoss(logitsAt(b, t), next(b, t)));
  const joined = (weight: number, value: number): number => weight * lm() + (1 - weight) * value;

  const dense = (strategy: 'mince' | 'avgce'): unknown => {
    const data = new Float64Array(batch * length * vocabulary);
    for (let b = 0; b < batch; b++) {
      for (let t = 0; t < length; t++) {
        const { ids, probabilities } = target(strategy, b, t);
        ids.forEach((id, i) => {
          data[(b * length + t) * vocabulary + id] = probabilities[i];
        });
      }
    }
    return tensor([batch, length, vocabulary], data);
  };
  const byModel = (of: (ces: number[]) => Float64Array): unknown => {
    const data = new Float64Array(models * batch);
    for (let b = 0; b < batch; b++) {
      of(ofSequence(b)).forEach((value, model) => {
        data[model * batch + b] = value;
      });
    }
    return tensor([models, batch], data);
  };
  const decayed = (): number =>
    decayedLambda(lambda, number(inputs.decay_step, 'decay_step'), number(inputs.decay_max_steps, 'decay_max_steps'));

  const found: Record<string, () => unknown> = {
    reward: () => byModel(rewards),
    mince_choice: () => Array.from({ length: batch }, (_, b) => minCeChoice(ofSequence(b))),
    mince_target: () => dense('mince'),
    avgce_weights: () => byModel(avgCeWeights),
    avgce_target: () => dense('avgce'),
    lm_loss: lm,
    mince_fusion_ce: () => fusion('mince', 'ce'),
    mince_fusion_kl: () => fusion('mince', 'kl'),
    avgce_fusion_ce: () => fusion('avgce', 'ce'),
    avgce_fusion_kl: () => fusion('avgce', 'kl'),
    mince_fusion_ce_fusechat_mask: () => fusion('mince', 'ce', labelled),
    avgce_fusion_ce_fusechat_mask: () => fusion('avgce', 'ce', labelled),
    mince_fusion_kl_fusechat_mask: () => fusion('mince', 'kl', labelled),
    avgce_fusion_kl_fusechat_mask: () => fusion('avgce', 'kl', labelled),
  };
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const loss = /^loss_(?:(mince|avgce)_hard_and_decay|(.*))$/.exec(key);
    if (key in found) result[key] = found[key]();
    else if (loss?.[1]) result[key] = joined(decayed(), Number(found[`${loss[1]}_fusion_ce`]()));
    else if (loss?.[2] && loss[2] in found) result[key] = joined(lambda, Number(found[loss[2]]()));
  }
  return result;
}
