import { InputError } from '../../errors.js';
import { type EmpgSettings, type EmpgSteps, empgSteps } from '../empg.js';
import { phaseMeans } from '../pear.js';
import type { RolloutIndex, RolloutStep, TokenBlock } from '../rollouts/types.js';
import { ENTROPY_PARAMETER, eachRecord, entropiesOf, placeOf, placesOf, touchedByAdvantage } from './record-effects.js';
import { aggregationOf, choiceSetting, LOSS_PARAMETERS, numberSetting, surrogateOf } from './settings.js';
import type { Intervention, InterventionSettings } from './types.js';

/** The turns of all trajectories of a step, those without tokens that count left out. */
export interface EmpgBatch {
  /** [turns]: mean token entropy in nats, tokens that count, number of the span in its record. */
  readonly entropy: Float64Array;
  readonly tokens: Int32Array;
  readonly span: Int32Array;
  /** [records of the step + 1]. */
  readonly offsets: Int32Array;
  /** [records of the step]. */
  readonly advantage: Float64Array;
  readonly steps: EmpgSteps;
}

function spansOf(index: RolloutIndex, record: number): Int32Array {
  const spans = index.stepSpans?.[record];
  if (spans !== undefined) return spans;
  throw new InputError(
    `empg needs the turns of ${index.stepSpans === undefined ? 'the responses' : `record ${record}`}: the field "step_spans" ` +
      'holds [from, to) of each (--map step_spans=COLUMN)',
  );
}

/** Advantage of a whole trajectory: of the index, else the mean over its tokens. */
function trajectoryAdvantage(index: RolloutIndex, block: TokenBlock, record: number, from: number, to: number): number {
  const known = index.advantage?.[record];
  if (known !== undefined && !Number.isNaN(known)) return known;
  const { advantage, mask } = block;
  if (advantage === undefined)
    throw new InputError('empg needs advantages: --map reward=COLUMN or --map advantage=COLUMN');
  let sum = 0;
  let tokens = 0;
  for (let i = from; i < to; i++) {
    if (mask[i] === 0) continue;
    sum += advantage[i];
    tokens++;
  }
  return tokens === 0 ? 0 : sum / tokens;
}

export function empgSettingsOf(settings: InterventionSettings): EmpgSettings {
  return {
    k: numberSetting(settings, 'k'),
    kFuture: numberSetting(settings, 'k-future'),
    zeta: numberSetting(settings, 'zeta'),
    eps: numberSetting(settings, 'eps'),
  };
}

/** Turns, their entropies and advantages, of a whole step: the batch over which EMPG normalises. */
export function empgBatch(step: RolloutStep, index: RolloutIndex, settings: InterventionSettings): EmpgBatch {
  const which = choiceSetting(settings, 'entropy');
  const entropy: number[] = [];
  const tokens: number[] = [];
  const span: number[] = [];
  const offsets = new Int32Array(step.records.length + 1);
  const advantage = new Float64Array(step.records.length);
  let place = 0;
  for (const block of step.blocks()) {
    const values = entropiesOf(block, which, 'empg');
    eachRecord(block, (record, from, to) => {
      const spans = spansOf(index, record);
      for (let s = 0; s + 1 < spans.length; s += 2) {
        const range = { from: from + spans[s], to: Math.min(to, from + spans[s + 1]), markerStart: -1, markerEnd: -1 };
        const { think, thinkTokens } = phaseMeans(values, block.mask, range);
        if (thinkTokens === 0) continue;
        entropy.push(think);
        tokens.push(thinkTokens);
        span.push(s / 2);
      }
      advantage[place] = trajectoryAdvantage(index, block, record, from, to);
      offsets[++place] = entropy.length;
    });
  }
  const values = Float64Array.from(entropy);
  const steps = empgSteps(values, offsets, advantage, empgSettingsOf(settings));
  return {
    entropy: values,
    tokens: Int32Array.from(tokens),
    span: Int32Array.from(span),
    offsets,
    advantage,
    steps,
  };
}

/** Step-level advantages from one trajectory reward, by the entropy of steps. */
export const empg: Intervention = {
  name: 'empg',
  title: 'EMPG: entropy-modulated policy gradients',
  reference: 'Harnessing Uncertainty: Entropy-Modulated Policy Gradients (2025, arXiv 2509.09265); spec 5',
  needs: ['advantage', 'stepSpans'],
  parameters: {
    k: { kind: 'number', initial: 1, help: 'sharpness of the scale by the entropy of a turn' },
    'k-future': { kind: 'number', initial: 1, help: 'sharpness of the bonus by the entropy of the next turn' },
    zeta: { kind: 'number', initial: 0.05, help: 'weight of the bonus' },
    eps: { kind: 'number', initial: 1e-8, least: 0, help: 'added to the range of the entropies' },
    entropy: ENTROPY_PARAMETER,
    ...LOSS_PARAMETERS,
  },
  prepare(step, settings, { index, plain }) {
    const places = placesOf(step);
    const { entropy, tokens, offsets, span, steps } = empgBatch(step, index, settings);
    const surrogate = surrogateOf(settings);
    const aggregation = aggregationOf(settings);
    return {
      effect(block) {
        const advantage = new Float64Array(block.mask.length);
        eachRecord(block, (record, from, to) => {
          const place = placeOf(places, record);
          const spans = spansOf(index, record);
          for (let j = offsets[place]; j < offsets[place + 1]; j++) {
            const end = Math.min(to, from + spans[2 * span[j] + 1]);
            for (let i = from + spans[2 * span[j]]; i < end; i++)
              if (block.mask[i] !== 0) advantage[i] = steps.final[j];
          }
        });
        const touched = touchedByAdvantage(block, advantage, surrogate, plain);
        return { surrogate, aggregation, advantage, touched };
      },
      facts: {
        turns: entropy.length,
        tokens_outside_turns: step.counted - tokens.reduce((sum, one) => sum + one, 0),
        turn_entropy_least_nats: entropy[steps.least],
        turn_entropy_most_nats: entropy[steps.most],
        scale_least: steps.scale[steps.most],
        scale_most: steps.scale[steps.least],
      },
      warnings: [],
    };
  },
};
