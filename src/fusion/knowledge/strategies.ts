import { createRandom } from '../../random.js';
import type { CompanionParameter } from '../../training/decoder-weights.js';
import type { ParameterSet, Precision } from '../../training/types.js';
import type { BatchPlan, SequencePlan, WeighBatch } from './fused-objective.js';
import { avgCeWeights, decayedLambda, type LambdaSchedule, minCeWeights, softLambda } from './fusion-functions.js';
import {
  feedbackLoss,
  gateSize,
  gateTensors,
  importanceOf,
  initialGate,
  type Selection,
  selectionEntropy,
  selectSources,
  selectSourcesBackward,
  sequenceScores,
} from './selector.js';

export const STRATEGIES = ['mince', 'avgce', 'fusion-x', 'clm'] as const;
/** How sequences are learnt from models; `clm`: from their text alone. */
export type Strategy = (typeof STRATEGIES)[number];

export type GateMode = 'trained' | 'random' | 'fixed';

/** The selector of Fusion-X in a run. */
export interface GateSettings {
  /** `random`: a new gate at every micro-batch, as in the released code; `fixed`: `values`. Nothing of either is learnt. */
  readonly mode: GateMode;
  readonly values?: Float64Array;
  readonly threshold: number;
  readonly feedbackWeight: number;
  /** Learning rate of the gate as a multiple of the student's. */
  readonly rateRatio: number;
}

/** How the weights of models and losses come about. */
export interface StrategySettings {
  readonly strategy: Strategy;
  readonly lambda: number;
  readonly schedule: LambdaSchedule;
  readonly steps: number;
  readonly gate: GateSettings;
  readonly seed: number;
}

/** What a step has chosen, summed over its micro-batches. */
export interface StepSelection {
  readonly step: number;
  /** [models] Σ w. */
  readonly importance: readonly number[];
  readonly feedback: number;
  /** Mean over the sequences of exp(H(w)). */
  readonly effectiveSources: number;
}

const GATE = 0x67617465;
const RANDOM_GATE = 0x72676174;
/** Prefix of the gate's parameters beside those of a student. */
const COMPANION = 'fusion.';

/** Values of each model's cross-entropy for a sequence. */
export const cesOf = (ces: readonly Float64Array[], sequence: number): number[] => ces.map((of) => of[sequence]);

/** The gate as parameters beside a student, with a learning rate of its own. */
export function gateCompanions(
  models: number,
  { rateRatio }: GateSettings,
  seed: number,
  precision: Precision,
): CompanionParameter[] {
  const gate = initialGate(models, createRandom(seed).fork(GATE));
  return gateTensors(models).map(({ name, dims, offset, length }) => ({
    name: `${COMPANION}${name}`,
    dims,
    initial: (precision === 'f32' ? Float32Array : Float64Array).from(gate.subarray(offset, offset + length)),
    undecayed: true as const,
    rate: rateRatio,
  }));
}

function gatePlace({ parameters }: ParameterSet): number {
  const first = parameters.find(({ name }) => name === `${COMPANION}gate1.weight`);
  if (!first) throw new RangeError('the student has no gate beside it');
  return first.offset;
}

/** The gate as it is now. */
export function gateOf(parameters: ParameterSet, models: number): Float64Array {
  const from = gatePlace(parameters);
  return Float64Array.from(parameters.values.subarray(from, from + gateSize(models)));
}

/** The gate of a micro-batch where none is trained. */
export function givenGate(
  { values }: GateSettings,
  models: number,
  seed: number,
  step: number,
  window: number,
): Float64Array {
  return values ?? randomGate(models, seed, step, window);
}

/** The gate that `random` draws for a micro-batch, by its step and first window. */
function randomGate(models: number, seed: number, step: number, window: number): Float64Array {
  return initialGate(models, createRandom(seed).fork(RANDOM_GATE).fork(step).fork(window));
}

/** λ of a sequence at a step, 1-based. */
function lambdaOf(settings: StrategySettings, step: number, ces: readonly number[], weights: Float64Array): number {
  const { schedule, lambda, steps, strategy } = settings;
  if (schedule === 'constant') return lambda;
  if (schedule === 'decay') return decayedLambda(lambda, step - 1, steps);
  return softLambda(ces, strategy === 'avgce' ? weights.map(() => 1 / weights.length) : weights);
}

/** Weights of a strategy that reads cross-entropies alone. */
export const fixedWeights = (strategy: Strategy, ces: ArrayLike<number>): Float64Array =>
  strategy === 'avgce' ? avgCeWeights(ces) : minCeWeights(ces);

/** MinCE and AvgCE. */
export function weighByCe(settings: StrategySettings, ces: readonly Float64Array[]): WeighBatch {
  return (windows, { step }): BatchPlan => ({
    sequences: Array.from(windows, (window): SequencePlan => {
      const own = cesOf(ces, window);
      const weights = fixedWeights(settings.strategy, own);
      return { weights, lambda: lambdaOf(settings, step, own, weights) };
    }),
  });
}

/**
 * Fusion-X: the selector weighs the models of each sequence. Trained, its parameters lie beside the student's: a micro-batch
 * adds the gradients of (1 - λ) L_fusion through the weights and of the feedback loss.
 * @param observe hears what every micro-batch has chosen
 */
export function weighBySelector(
  settings: StrategySettings,
  ces: readonly Float64Array[],
  parameters: ParameterSet,
  observe?: (step: number, selections: readonly Selection[], feedback: number) => void,
): WeighBatch {
  const { gate, seed } = settings;
  const models = ces.length;
  return (windows, { step }): BatchPlan => {
    const values =
      gate.mode === 'trained' ? gateOf(parameters, models) : givenGate(gate, models, seed, step, windows[0]);
    const selections = Array.from(windows, (window) =>
      selectSources(values, sequenceScores(cesOf(ces, window), `sequence ${window}`), gate.threshold),
    );
    const feedback = feedbackLoss(
      importanceOf(
        selections.map(({ weights }) => weights),
        models,
      ),
    );
    observe?.(step, selections, feedback.value);
    return {
      sequences: selections.map(({ weights }, i) => ({
        weights,
        lambda: lambdaOf(settings, step, cesOf(ces, windows[i]), weights),
      })),
      feedback: { weight: gate.feedbackWeight, value: feedback.value },
      learn(slopes, countedRows) {
        if (gate.mode !== 'trained') return;
        const gradient = new Float64Array(gateSize(models));
        const factor = gate.feedbackWeight * countedRows;
        selections.forEach((selection, i) => {
          const slope = slopes[i].map((value, k) => value + factor * feedback.slope[k]);
          selectSourcesBackward(values, selection, slope, gradient);
        });
        const from = gatePlace(parameters);
        for (let i = 0; i < gradient.length; i++) parameters.gradients[from + i] += gradient[i];
      },
    };
  };
}

/** Sums the micro-batches of steps; `take` ends a step. */
export function selectionRecorder(models: number): {
  readonly observe: (step: number, selections: readonly Selection[], feedback: number) => void;
  readonly take: (step: number) => StepSelection;
} {
  let importance = new Float64Array(models);
  let feedback = 0;
  let batches = 0;
  let effective = 0;
  let sequences = 0;
  return {
    observe(_, selections, value) {
      for (const { weights } of selections) {
        for (let k = 0; k < models; k++) importance[k] += weights[k];
        effective += Math.exp(selectionEntropy(weights));
        sequences++;
      }
      feedback += value;
      batches++;
    },
    take(step) {
      const found = {
        step,
        importance: [...importance],
        feedback: feedback / Math.max(1, batches),
        effectiveSources: effective / Math.max(1, sequences),
      };
      importance = new Float64Array(models);
      [feedback, batches, effective, sequences] = [0, 0, 0, 0];
      return found;
    },
  };
}
