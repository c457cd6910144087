import { InputError } from '../../errors.js';
import { topCount } from '../../linalg/streamed-selection.js';
import { hasRequirement, possibleViews, rescoringHint } from '../rollouts/require-columns.js';
import { smallBlocks } from '../rollouts/small-blocks.js';
import type { RolloutStep, Rollouts, TokenBlock } from '../rollouts/types.js';
import { compareStep, type StepComparison } from './comparison-sums.js';
import { grpo } from './grpo.js';
import { findIntervention, INTERVENTIONS } from './registry.js';
import { scopeUnits, selectInScopes } from './scoped-selection.js';
import { completeSettings, parseMethod, surrogateOf } from './settings.js';
import type {
  Facts,
  Intervention,
  InterventionContext,
  InterventionSettings,
  Need,
  PolicyEffect,
  PreparedIntervention,
} from './types.js';

/** A method with its settings. */
export interface MethodChoice {
  /** As tables and figures call it: its name, with the settings that were given. */
  readonly label: string;
  readonly name: string;
  readonly settings: InterventionSettings;
}

/**
 * Reads `name:key=value,...` for every method; all interventions with their initial settings where there are none.
 * @throws InputError for an unknown name or setting, or a method that comes twice
 */
export function chooseMethods(texts: readonly string[]): MethodChoice[] {
  const chosen =
    texts.length > 0
      ? texts.map((text) => {
          const { name, settings } = parseMethod(text);
          return { label: text.trim(), name, settings: completeSettings(findIntervention(name), settings) };
        })
      : INTERVENTIONS.filter(({ name }) => name !== grpo.name).map((method) => ({
          label: method.name,
          name: method.name,
          settings: completeSettings(method),
        }));
  const seen = new Set<string>();
  for (const { label } of chosen) {
    if (seen.has(label)) throw new InputError(`--method ${label} is given twice`);
    seen.add(label);
  }
  return chosen;
}

/**
 * Plain GRPO with the settings of `key=value,...`: what the methods are compared with.
 * @throws InputError for an unknown setting
 */
export function choosePlain(text: string | undefined): MethodChoice {
  const { settings } = text === undefined ? { settings: {} } : parseMethod(`${grpo.name}:${text}`);
  return { label: grpo.name, name: grpo.name, settings: completeSettings(grpo, settings) };
}

/** A method that the dump cannot show. */
export interface UnavailableMethod {
  readonly label: string;
  readonly reason: string;
}

const LACKS: Readonly<Record<Need, string>> = {
  logProb: 'log-probabilities of the sampled tokens (logprob)',
  oldLogProb: 'log-probabilities of the policy that sampled (old_logprob)',
  entropy: 'entropies over the whole vocabulary (entropy)',
  advantage: 'advantages, or rewards to make them of (advantage, reward)',
  reward: 'rewards (reward)',
  correct: 'which answers are correct (correct, or rewards of two values)',
  topTokens: 'the likeliest tokens of every position (topk)',
  text: 'texts of the tokens (token_text, or tokens with --model)',
  thinkEnd: 'where thinking ends (think_end, or --think-marker with tokens)',
  stepSpans: 'turns of the responses (step_spans)',
  difficulty: 'difficulties (difficulty)',
};

/** Why a dump cannot show a method, or undefined where it can. */
export function lackOf(rollouts: Rollouts, needs: readonly Need[]): string | undefined {
  const missing = needs.filter((need) => !hasRequirement(rollouts, need));
  if (missing.length === 0) return undefined;
  const bounds = missing.includes('entropy') && hasRequirement(rollouts, 'entropyBounds');
  return (
    `the dump lacks ${missing.map((need) => LACKS[need]).join('; ')}` +
    (bounds ? '; its top-k log-probabilities give bounds on the entropy, not the entropy' : '')
  );
}

/** One step with what the methods say of it. */
export interface ComparedStep extends StepComparison {
  readonly step: number;
  readonly facts: readonly Facts[];
}

export interface Comparison {
  /** Plain GRPO first. */
  readonly methods: readonly MethodChoice[];
  readonly unavailable: readonly UnavailableMethod[];
  readonly steps: readonly ComparedStep[];
  /** Warnings of every method, each once, with the number of steps where it holds. */
  readonly methodWarnings: readonly (readonly string[])[];
  readonly warnings: readonly string[];
}

export interface ComparisonOptions {
  readonly methods: readonly MethodChoice[];
  readonly plain: MethodChoice;
  /** Whether a method that the dump cannot show is an error, or listed with the reason. */
  readonly strict: boolean;
  readonly seed: number;
  /** See `InterventionContext`. */
  readonly triggerWords?: readonly string[];
  readonly specialTokens?: readonly number[];
  /** Share of the tokens that count as those of high entropy. */
  readonly topFraction: number;
  readonly sink?: (method: MethodChoice, step: RolloutStep, block: TokenBlock, effect: PolicyEffect) => void;
  readonly progress?: (tokens: number) => void;
}

interface RunningMethod {
  readonly choice: MethodChoice;
  readonly intervention: Intervention;
  readonly context: InterventionContext;
  readonly warnings: Map<string, number>;
}

/** Marks the tokens of a step whose entropies are the highest. */
function topEntropyOf(step: RolloutStep, rollouts: Rollouts, fraction: number): (block: TokenBlock) => Uint8Array {
  const units = scopeUnits(step, 'batch', rollouts.index);
  const score = (block: TokenBlock, out: Float64Array): void => {
    for (let i = 0; i < block.mask.length; i++) out[i] = block.mask[i] === 1 ? (block.entropy?.[i] ?? 0) : Number.NaN;
  };
  const wanted = Float64Array.of(topCount(fraction, step.counted));
  const selection = selectInScopes(step, units, { candidates: units.counted, score }, wanted);
  return (block) => {
    const top = new Uint8Array(block.mask.length);
    for (let i = 0; i < top.length; i++) {
      if (block.mask[i] === 1 && selection.has(0, block.entropy?.[i] ?? 0, block.firstToken + i)) top[i] = 1;
    }
    return top;
  };
}

/**
 * What every method would have done to a dump, step by step (spec 11). Each method sees the steps in order and keeps what it
 * carries from one to the next; tokens are read in blocks and never held as a whole.
 * @throws InputError where nothing can be compared, or under `strict` where a method cannot
 */
export function compareMethods(rollouts: Rollouts, options: ComparisonOptions): Comparison {
  const { plain, strict, seed, topFraction, triggerWords, specialTokens } = options;
  const lack = lackOf(rollouts, grpo.needs);
  if (lack !== undefined) {
    const missing = grpo.needs.filter((need) => !hasRequirement(rollouts, need));
    throw new InputError(
      `interventions: ${lack}; ${possibleViews(rollouts)}${rescoringHint(missing)}; --map names its columns`,
    );
  }
  const unavailable: UnavailableMethod[] = [];
  const refuse = (label: string, reason: string): void => {
    const subject = reason.startsWith(label) ? '' : `${label}: `;
    if (strict) throw new InputError(`${subject}${reason}; ${possibleViews(rollouts)}`);
    unavailable.push({ label, reason });
  };
  let running: RunningMethod[] = [];
  for (const choice of [plain, ...options.methods]) {
    const intervention = findIntervention(choice.name);
    const reason = lackOf(rollouts, intervention.needs);
    if (reason !== undefined) {
      refuse(choice.label, reason);
      continue;
    }
    const context: InterventionContext = {
      index: rollouts.index,
      ...(rollouts.textOf && { textOf: rollouts.textOf }),
      ...(rollouts.textOfToken && { textOfToken: rollouts.textOfToken }),
      ...(triggerWords && { triggerWords }),
      ...(specialTokens && { specialTokens }),
      seed,
      plain: surrogateOf(plain.settings),
      carried: {},
    };
    running.push({ choice, intervention, context, warnings: new Map() });
  }
  const compared: { readonly methods: readonly RunningMethod[]; readonly step: ComparedStep }[] = [];
  const warnings: string[] = [];
  let done = 0;
  for (const whole of rollouts.steps) {
    const step = smallBlocks(whole);
    if (step.counted === 0) {
      warnings.push(`step ${step.step} has no valid tokens: every position is masked out`);
      continue;
    }
    const prepared: PreparedIntervention[] = [];
    const able: RunningMethod[] = [];
    for (const method of running) {
      try {
        const one = method.intervention.prepare(step, method.choice.settings, method.context);
        // A method may find only at its blocks that it cannot; the first says so.
        for (const block of step.blocks()) {
          one.effect(block);
          break;
        }
        prepared.push(one);
        able.push(method);
      } catch (error) {
        if (!(error instanceof InputError) || method.choice === plain) throw error;
        refuse(method.choice.label, rollouts.steps.length > 1 ? `step ${step.step}: ${error.message}` : error.message);
      }
    }
    running = able;
    const facts = prepared.map((one) => one.facts);
    const measures = compareStep({
      step,
      index: rollouts.index,
      prepared,
      ...(rollouts.columns.has('entropy') && { topEntropy: topEntropyOf(step, rollouts, topFraction) }),
      ...(options.sink && {
        sink: (m: number, block: TokenBlock, effect: PolicyEffect) =>
          options.sink?.(able[m].choice, step, block, effect),
      }),
    });
    for (const [m, { warnings: counts }] of able.entries()) {
      for (const warning of prepared[m].warnings) counts.set(warning, (counts.get(warning) ?? 0) + 1);
    }
    compared.push({ methods: able, step: { step: step.step, facts, ...measures } });
    done += step.tokens;
    options.progress?.(done);
  }
  if (compared.length === 0) throw new InputError('interventions: no step of the dump has valid tokens');
  return {
    methods: running.map(({ choice }) => choice),
    unavailable,
    steps: compared.map(({ methods, step }) => restrict(step, methods, running)),
    methodWarnings: running.map(({ warnings: counts }) => listed(counts, compared.length)),
    warnings,
  };
}

function listed(counts: ReadonlyMap<string, number>, steps: number): string[] {
  return [...counts].map(([warning, times]) => (steps > 1 ? `${warning} (${times} of ${steps} steps)` : warning));
}

/** A step without the methods that a later step had to leave out. */
function restrict(step: ComparedStep, had: readonly RunningMethod[], kept: readonly RunningMethod[]): ComparedStep {
  if (had.length === kept.length) return step;
  const places = kept.map((method) => had.indexOf(method));
  const pick = (matrix: Float64Array): Float64Array =>
    Float64Array.from(places.flatMap((a) => places.map((b) => matrix[a * had.length + b])));
  return {
    ...step,
    facts: places.map((p) => step.facts[p]),
    methods: places.map((p) => step.methods[p]),
    both: pick(step.both),
    either: pick(step.either),
    least: pick(step.least),
    most: pick(step.most),
  };
}
