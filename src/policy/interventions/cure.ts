import { InputError } from '../../errors.js';
import { createRandom, type Random } from '../../random.js';
import { criticalTokens, drawPosition, isCriticalText, randomTokens } from '../cure.js';
import type { RolloutStep, TokenBlock } from '../rollouts/types.js';
import { touchedBySurrogate } from './effects.js';
import { ENTROPY_PARAMETER, eachRecord, entropiesOf, wholeSetting } from './record-effects.js';
import { aggregationOf, choiceSetting, LOSS_PARAMETERS, surrogateOf } from './settings.js';
import { looksSpecial } from './token-texts.js';
import type { Intervention, InterventionContext, InterventionParameter, InterventionSettings } from './types.js';

/** Where one response can be cut and where it is. */
export interface CuredRecord {
  /** Positions, highest entropy first. */
  readonly critical: Int32Array;
  /** The drawn one; 0: from the beginning. */
  readonly position: number;
}

/** Finds the critical tokens of records; made once a step. */
export interface CureReader {
  read(block: TokenBlock, record: number, from: number, to: number): CuredRecord;
}

/** One stream a record, whatever is read before it. */
function recordStream(seed: number, step: number, record: number): Random {
  return createRandom(seed).fork(step).fork(record);
}

/** Which tokens of a block may be cut at. @throws InputError where the dump has neither texts nor a tokenizer */
function eligibility(block: TokenBlock, context: InterventionContext): (index: number) => boolean {
  const { textIds, tokens } = block;
  const { textOf } = context;
  if (textIds === undefined || textOf === undefined) {
    throw new InputError(
      'cure needs the texts of tokens, which say what may be cut at: --map token_text=COLUMN, or --model for its tokenizer',
    );
  }
  const special = new Set(context.specialTokens ?? []);
  const known = new Map<number, boolean>();
  return (index) => {
    if (tokens !== undefined && special.has(tokens[index])) return false;
    const id = textIds[index];
    const before = known.get(id);
    if (before !== undefined) return before;
    const text = textOf(id);
    const may = isCriticalText(text) && !looksSpecial(text);
    known.set(id, may);
    return may;
  };
}

export function createCureReader(
  step: RolloutStep,
  settings: InterventionSettings,
  context: InterventionContext,
): CureReader {
  const topK = wholeSetting(settings, 'top-k', 'cure');
  const byEntropy = choiceSetting(settings, 'order') === 'entropy';
  const which = choiceSetting(settings, 'entropy');
  const tests = new WeakMap<TokenBlock, (index: number) => boolean>();
  return {
    read(block, record, from, to) {
      const eligible = tests.get(block) ?? eligibility(block, context);
      tests.set(block, eligible);
      const random = recordStream(context.seed, step.step, record);
      const entropy = byEntropy ? entropiesOf(block, which, 'cure') : new Float64Array(0);
      const span = { from, to, entropy, mask: block.mask, eligible };
      const critical = byEntropy ? criticalTokens(span, topK) : randomTokens(span, topK, random.fork(1));
      return { critical, position: drawPosition(critical, random.fork(0)) };
    },
  };
}

const BRANCH_PARAMETERS: Readonly<Record<string, InterventionParameter>> = {
  branches: { kind: 'number', initial: 3, least: 1, help: 'continuations of every cut response (n2)' },
  'prompt-budget': {
    kind: 'number',
    initial: 1500,
    least: 1,
    help: 'tokens that prompt and prefix may have; the rest is cut off',
  },
};

/**
 * Restarts from prefixes cut at high-entropy tokens. The loss on the responses of the dump stays that of the recipe; what is
 * marked as touched are the tokens at which a response could be cut.
 */
export const cure: Intervention = {
  name: 'cure',
  title: 'CURE: critical tokens',
  reference: 'CURE: Critical-Token-Guided Re-Concatenation (2025, arXiv 2508.11016); spec 6',
  needs: ['text'],
  parameters: {
    'top-k': { kind: 'number', initial: 20, least: 1, help: 'critical tokens of a response' },
    order: {
      kind: 'choice',
      initial: 'entropy',
      choices: ['entropy', 'random'],
      help: 'how tokens are ranked; random is the ablation',
    },
    ...BRANCH_PARAMETERS,
    entropy: ENTROPY_PARAMETER,
    ...LOSS_PARAMETERS,
  },
  prepare(step, settings, context) {
    const reader = createCureReader(step, settings, context);
    const surrogate = surrogateOf(settings);
    const aggregation = aggregationOf(settings);
    let [critical, fallbacks, kept] = [0, 0, 0];
    for (const block of step.blocks()) {
      eachRecord(block, (record, from, to) => {
        const cured = reader.read(block, record, from, to);
        critical += cured.critical.length;
        kept += cured.position;
        if (cured.critical.length === 0) fallbacks++;
      });
    }
    return {
      effect(block) {
        const touched = touchedBySurrogate(block, surrogate, context.plain);
        eachRecord(block, (record, from, to) => {
          for (const t of reader.read(block, record, from, to).critical) touched[from + t] = 1;
        });
        return { surrogate, aggregation, touched };
      },
      facts: {
        critical_tokens: critical,
        responses_without: fallbacks,
        prefix_tokens_mean: kept / step.records.length,
        group_factor: 1 + wholeSetting(settings, 'branches', 'cure'),
      },
      warnings: [],
    };
  },
};
