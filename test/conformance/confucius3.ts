import { hardnessWeights, signedRewards } from '../../src/policy/hardness-weights.js';
import { emptySamples, type RecentSamples, recentRound } from '../../src/policy/recent-samples.js';
import { targetedEntropy } from '../../src/policy/targeted-entropy.js';
import type { Json } from './harness.js';
import { float64, number, numbers, shapeOf, tensor } from './tensors.js';

function recovery(rounds: Json[], batch: number): unknown {
  let state: RecentSamples<number> = emptySamples();
  const trace = rounds.map((groups) => {
    if (!Array.isArray(groups)) throw new TypeError('a round is not a list');
    const generated = groups.map((group) => {
      const [id, correct, size] = numbers(group, 'group');
      return { id, correct, size };
    });
    const { used, buffered, recovered, next } = recentRound(state, generated, batch);
    state = next;
    return { used: used?.map(({ id }) => id) ?? null, buffer: buffered, recovered };
  });
  return { trace };
}

export function run(inputs: { [key: string]: Json }): unknown {
  if (Array.isArray(inputs.rounds)) return recovery(inputs.rounds, number(inputs.batch_size, 'batch_size'));
  if (!Array.isArray(inputs.rewards)) throw new TypeError('rewards is not a list');
  const rows = inputs.rewards.map((row) => numbers(row, 'rewards'));
  const group = Int32Array.from(rows.flatMap((row, g) => row.map(() => g)));
  const { signed } = signedRewards(Float64Array.from(rows.flat()), false);
  const weights = hardnessWeights(signed, group, rows.length, {
    alpha: number(inputs.alpha, 'alpha'),
    bias: number(inputs.bias, 'bias'),
  });
  const mask = Uint8Array.from(float64(inputs.response_mask, 'response_mask'));
  const term = targetedEntropy(float64(inputs.entropy, 'entropy'), mask, {
    target: number(inputs.entropy_target, 'entropy_target'),
    coefficient: number(inputs.entropy_coeff, 'entropy_coeff'),
  });
  const advantages = [...weights.advantage];
  return {
    mean: [...weights.mean],
    hardness: [...weights.hardness],
    advantages: rows.map((row) => advantages.splice(0, row.length)),
    mean_entropy: term.meanEntropy,
    entropy_loss: term.loss,
    d_loss_d_entropy: tensor(
      shapeOf(inputs.entropy, 'entropy'),
      Float64Array.from(mask, (one) => (one === 0 ? 0 : term.gradient)),
    ),
  };
}
