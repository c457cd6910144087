import { groupAdvantages } from '../../src/policy/advantages.js';
import type { Json } from './harness.js';
import { float64, keysOf, listed, number, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const reward = float64(inputs.rewards, 'rewards');
  const labels = listed(inputs.group, 'group');
  const numbers = new Map([...new Set(labels)].map((label, g) => [label, g]));
  const group = Int32Array.from(labels, (label) => numbers.get(label) ?? -1);
  const mask = float64(inputs.response_mask, 'response_mask');
  const [records, length] = shapeOf(inputs.response_mask, 'response_mask');
  const eps = inputs.eps === undefined ? undefined : number(inputs.eps, 'eps');
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const advantage = groupAdvantages(reward, group, numbers.size, {
      variant: key.endsWith('no_std') ? 'no-std' : 'grpo',
      eps,
    });
    result[key] = tensor(
      [records, length],
      mask.map((counts, i) => (counts === 0 ? 0 : advantage[Math.floor(i / length)])),
    );
  }
  return result;
}
