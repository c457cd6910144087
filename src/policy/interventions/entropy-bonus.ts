import { InputError } from '../../errors.js';
import { batchSizeOf } from '../aggregation.js';
import { addTo, createCompensatedSum, totalOf } from '../compensated-sum.js';
import { entropyDirections } from '../entropy-change-estimates.js';
import type { RolloutStep, TokenBlock } from '../rollouts/types.js';
import { surrogateTerms } from '../surrogate.js';
import { touchedBySurrogate } from './effects.js';
import { aggregationOf, choiceSetting, LOSS_PARAMETERS, numberSetting, surrogateOf } from './settings.js';
import type { Facts, Intervention, InterventionContext, InterventionSettings, Surrogate } from './types.js';

function entropyOf(block: TokenBlock): Float64Array {
  if (block.entropy !== undefined) return block.entropy;
  throw new InputError('an entropy bonus needs entropies over the whole vocabulary; bounds are not enough');
}

/** Mean entropy over the counted tokens of a step, nats. */
export function meanEntropy(step: RolloutStep): number {
  const total = createCompensatedSum();
  for (const block of step.blocks()) {
    const entropy = entropyOf(block);
    for (let r = 0; r < block.records.length; r++) {
      let sum = 0;
      for (let i = block.offsets[r]; i < block.offsets[r + 1]; i++) if (block.mask[i] === 1) sum += entropy[i];
      addTo(total, sum);
    }
  }
  return totalOf(total) / step.counted;
}

/** The controller of an adaptive coefficient. */
export interface BonusController {
  readonly coefficient: number;
  /** Mean entropy of the step before; NaN before the first. */
  readonly lastEntropy: number;
}

/**
 * One step of TRL's adaptive coefficient: up by `delta` where the entropy is at most the target, else down, held in [least, most];
 * it is used only where the entropy of the step before was at most the target.
 */
export function adaptCoefficient(
  { coefficient, lastEntropy }: BonusController,
  entropy: number,
  { target, delta, least, most }: { target: number; delta: number; least: number; most: number },
): { readonly used: number; readonly next: BonusController } {
  const used = lastEntropy <= target ? coefficient : 0;
  const moved = coefficient + (entropy <= target ? delta : -delta);
  return { used, next: { coefficient: Math.min(Math.max(moved, least), most), lastEntropy: entropy } };
}

/** The coefficient that a step is trained with, and that of the next. */
function coefficientOf(
  step: RolloutStep,
  settings: InterventionSettings,
  { carried }: InterventionContext,
): { readonly used: number; readonly entropy: number; readonly next?: number } {
  const coefficient = numberSetting(settings, 'coefficient');
  const entropy = meanEntropy(step);
  if (choiceSetting(settings, 'schedule') === 'fixed') return { used: coefficient, entropy };
  const before: BonusController = carried?.entropyBonus ?? { coefficient, lastEntropy: Number.NaN };
  const { used, next } = adaptCoefficient(before, entropy, {
    target: numberSetting(settings, 'target'),
    delta: numberSetting(settings, 'delta'),
    least: numberSetting(settings, 'least'),
    most: numberSetting(settings, 'most'),
  });
  if (carried) carried.entropyBonus = next;
  return { used, entropy, next: next.coefficient };
}

/**
 * First-order changes of the mean entropy per unit of step size, in STEER's scale: by the policy gradient, and by a bonus with a
 * coefficient of 1; and the coefficient at which they cancel.
 */
function coefficientEffect(step: RolloutStep, surrogate: Surrogate): Facts {
  const policy = createCompensatedSum();
  const bonus = createCompensatedSum();
  for (const block of step.blocks()) {
    const { advantage, mask } = block;
    const directions = entropyDirections(block, 'steer');
    if (advantage === undefined || directions === undefined) return {};
    const { gradient } = surrogateTerms(block, surrogate, advantage);
    const { slope, ascent } = directions;
    for (let i = 0; i < mask.length; i++) {
      if (mask[i] === 0) continue;
      addTo(policy, -gradient[i] * slope[i]);
      addTo(bonus, ascent[i]);
    }
  }
  const byPolicy = totalOf(policy) / step.counted;
  const byBonus = totalOf(bonus) / step.counted;
  return {
    policy_entropy_change_nats: byPolicy,
    bonus_entropy_change_per_coefficient_nats: byBonus,
    ...(byBonus > 0 && { balancing_coefficient: Math.max(0, -byPolicy / byBonus) }),
  };
}

/** A term -coefficient * mean entropy in the loss, with a fixed coefficient or TRL's adaptive one. */
export const entropyBonus: Intervention = {
  name: 'entropy-bonus',
  title: 'Entropy bonus',
  reference: 'Mnih et al. 2016 (arXiv 1602.01783); adaptive: TRL (2026) as in spec 13',
  needs: ['logProb', 'advantage', 'entropy'],
  entropyOf: 'update',
  parameters: {
    coefficient: {
      kind: 'number',
      initial: 1e-3,
      help: 'the loss gets minus this times the mean entropy (adaptive: at first)',
    },
    schedule: {
      kind: 'choice',
      initial: 'fixed',
      choices: ['fixed', 'adaptive'],
      help: 'fixed; adaptive: by steps towards a target entropy',
    },
    target: { kind: 'number', initial: 0.2, least: 0, help: 'target entropy in nats (adaptive)' },
    delta: { kind: 'number', initial: 0.005, least: 0, help: 'change of the coefficient a step (adaptive)' },
    least: { kind: 'number', initial: 0, help: 'smallest coefficient (adaptive)' },
    most: { kind: 'number', initial: 1, help: 'largest coefficient (adaptive)' },
    ...LOSS_PARAMETERS,
  },
  prepare(step, settings, context) {
    const batch = batchSizeOf(step, context.index);
    const surrogate = surrogateOf(settings);
    const aggregation = aggregationOf(settings);
    const { used, entropy, next } = coefficientOf(step, settings, context);
    const warnings: string[] = [];
    if (next !== undefined && context.carried === undefined) {
      warnings.push('the adaptive coefficient remembers nothing here: this step counts as the first');
    }
    let facts: Facts | undefined;
    return {
      effect(block) {
        const entropyGradient = new Float64Array(block.mask.length);
        const touched = touchedBySurrogate(block, surrogate, context.plain);
        if (used !== 0) {
          const slope = -used / batch.counted;
          for (let i = 0; i < touched.length; i++) {
            if (block.mask[i] === 0) continue;
            entropyGradient[i] = slope;
            touched[i] = 1;
          }
        }
        return { surrogate, aggregation, entropyGradient, touched };
      },
      get facts() {
        facts ??= {
          coefficient: used,
          ...(next !== undefined && { next_coefficient: next }),
          entropy_mean_nats: entropy,
          ...coefficientEffect(step, surrogate),
        };
        return facts;
      },
      warnings,
    };
  },
};
