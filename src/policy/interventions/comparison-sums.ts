import { type BatchSize, batchSizeOf, totalWeight } from '../aggregation.js';
import { addTo, type CompensatedSum, createCompensatedSum, totalOf } from '../compensated-sum.js';
import { createDistributionSums, distributionSums, entropyAscent, entropySlope } from '../entropy-change-estimates.js';
import { addObjective, createObjectiveSums, type ObjectiveSums, objectiveFigures } from '../objective.js';
import type { RolloutIndex, RolloutStep, TokenBlock } from '../rollouts/types.js';
import type { PolicyEffect, PreparedIntervention } from './types.js';

/** What one method would have done to the tokens of one step. */
export interface StepMeasures {
  readonly touched: number;
  /** Sum of |A rho| over the touched tokens. */
  readonly touchedMass: number;
  /** Sums over tokens of |d L / d log pi| and of its distance from plain GRPO's, of losses per token. */
  readonly gradient: number;
  readonly moved: number;
  /** First-order change of the mean entropy per unit of step size, nats; NaN where the dump does not say. */
  readonly steerChange: number;
  readonly exactChange: number;
  /** Touched tokens among those with the highest entropies. */
  readonly touchedTop: number;
  readonly loss: number;
  readonly clipFraction: number;
  readonly dualClipFraction: number;
}

/** One step of the comparison; arrays are in the order of the methods, plain GRPO first. */
export interface StepComparison {
  readonly counted: number;
  /** Sum of |A rho|. */
  readonly mass: number;
  /** Mean entropy in nats; NaN without entropies. */
  readonly entropy: number;
  readonly topEntropyTokens: number;
  readonly methods: readonly StepMeasures[];
  /** [methods, methods]: tokens touched by both, by either. */
  readonly both: Float64Array;
  readonly either: Float64Array;
  /** [methods, methods]: sums over tokens of the smaller and the larger of both moved gradients. */
  readonly least: Float64Array;
  readonly most: Float64Array;
}

/** What is asked of every block beside the methods. */
export interface StepContext {
  readonly step: RolloutStep;
  readonly index: RolloutIndex;
  /** Plain GRPO first. */
  readonly prepared: readonly PreparedIntervention[];
  /** [tokens], 1 where the entropy is among the highest; absent without entropies. */
  readonly topEntropy?: (block: TokenBlock) => Uint8Array;
  /** Takes what every method makes of a block, in the order of the methods. */
  readonly sink?: (method: number, block: TokenBlock, effect: PolicyEffect) => void;
}

interface MethodSums {
  readonly objective: ObjectiveSums;
  readonly gradient: CompensatedSum;
  readonly moved: CompensatedSum;
  readonly touchedMass: CompensatedSum;
  readonly steer: CompensatedSum;
  readonly exact: CompensatedSum;
  touched: number;
  touchedTop: number;
}

function createMethodSums(batch: BatchSize): MethodSums {
  return {
    objective: createObjectiveSums(batch),
    gradient: createCompensatedSum(),
    moved: createCompensatedSum(),
    touchedMass: createCompensatedSum(),
    steer: createCompensatedSum(),
    exact: createCompensatedSum(),
    touched: 0,
    touchedTop: 0,
  };
}

/** What a change of log-probability, or of the entropy itself, does to the entropy of every token of a block. */
interface Slopes {
  readonly steer?: { readonly slope: Float64Array; readonly ascent: Float64Array };
  readonly exact?: { readonly slope: Float64Array; readonly ascent: Float64Array };
}

function slopesOf({ mask, logProb, entropy, topTokens }: TokenBlock): Slopes {
  if (logProb === undefined || entropy === undefined) return {};
  const pair = () => ({ slope: new Float64Array(mask.length), ascent: new Float64Array(mask.length) });
  const steer = pair();
  const exact = topTokens === undefined ? undefined : pair();
  const sums = createDistributionSums();
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 0) continue;
    steer.slope[i] = entropySlope('steer', logProb[i], entropy[i], 0);
    steer.ascent[i] = entropyAscent('steer', logProb[i], entropy[i], 0);
    if (topTokens === undefined || exact === undefined) continue;
    distributionSums(topTokens, i, entropy[i], sums);
    exact.slope[i] = entropySlope('exact', logProb[i], entropy[i], sums.s);
    exact.ascent[i] = entropyAscent('exact', logProb[i], entropy[i], sums.squares);
  }
  return { steer, ...(exact && { exact }) };
}

/** |A rho| of every token of a block under the dump's advantages, 0 under a mask of 0. */
function gradientMass({ mask, logProb, oldLogProb, advantage }: TokenBlock): Float64Array {
  const mass = new Float64Array(mask.length);
  if (logProb === undefined || advantage === undefined) return mass;
  const old = oldLogProb ?? logProb;
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 1 && advantage[i] !== 0) mass[i] = Math.abs(advantage[i]) * Math.exp(logProb[i] - old[i]);
  }
  return mass;
}

/** Adds the sum over the tokens of every record, record by record, so that blocks leave no trace. */
function addByRecord({ offsets, records }: TokenBlock, sum: CompensatedSum, values: Float64Array): void {
  for (let r = 0; r < records.length; r++) {
    let total = 0;
    for (let i = offsets[r]; i < offsets[r + 1]; i++) total += values[i];
    addTo(sum, total);
  }
}

/** -slope * gradient - ascent * entropy gradient of every token into `out`. */
function changeOf(
  { slope, ascent }: { readonly slope: Float64Array; readonly ascent: Float64Array },
  gradient: Float64Array,
  entropyGradient: Float64Array | undefined,
  out: Float64Array,
): void {
  for (let i = 0; i < out.length; i++) {
    out[i] = -gradient[i] * slope[i];
    if (entropyGradient !== undefined) out[i] -= entropyGradient[i] * ascent[i];
  }
}

/** Compares all methods on one step: every block is read once beside what the methods themselves have read. */
export function compareStep({ step, index, prepared, topEntropy, sink }: StepContext): StepComparison {
  const batch = batchSizeOf(step, index);
  const count = prepared.length;
  const sums = prepared.map(() => createMethodSums(batch));
  const places = count * count;
  const pairs: PairSums = {
    both: new Float64Array(places),
    either: new Float64Array(places),
    least: Array.from({ length: places }, createCompensatedSum),
    most: Array.from({ length: places }, createCompensatedSum),
  };
  const mass = createCompensatedSum();
  const entropies = createCompensatedSum();
  let known = true;
  let exact = true;
  let topTokens = 0;
  for (const block of step.blocks()) {
    const size = block.mask.length;
    const masses = gradientMass(block);
    const slopes = slopesOf(block);
    const top = topEntropy?.(block);
    known &&= slopes.steer !== undefined;
    exact &&= slopes.exact !== undefined;
    addByRecord(block, mass, masses);
    if (block.entropy) addByRecord(block, entropies, masked(block.entropy, block.mask));
    if (top) for (const one of top) topTokens += one;
    const touched: Uint8Array[] = [];
    const moved: Float64Array[] = [];
    let plainGradient: Float64Array | undefined;
    const scratch = new Float64Array(size);
    for (let m = 0; m < count; m++) {
      const effect = prepared[m].effect(block);
      sink?.(m, block, effect);
      const gradient = new Float64Array(size);
      const own = sums[m];
      addObjective(own.objective, block, effect, { gradient });
      // One scale for all aggregations: weights that sum to 1 over the counted tokens.
      const scale = 1 / totalWeight(effect.aggregation, batch);
      for (let i = 0; i < size; i++) gradient[i] *= scale;
      plainGradient ??= gradient;
      const distance = new Float64Array(size);
      for (let i = 0; i < size; i++) {
        distance[i] = Math.abs(gradient[i] - plainGradient[i]);
        scratch[i] = Math.abs(gradient[i]);
      }
      addByRecord(block, own.gradient, scratch);
      addByRecord(block, own.moved, distance);
      for (let i = 0; i < size; i++) scratch[i] = effect.touched[i] === 1 ? masses[i] : 0;
      addByRecord(block, own.touchedMass, scratch);
      for (const kind of ['steer', 'exact'] as const) {
        const lines = slopes[kind];
        if (lines === undefined) continue;
        changeOf(lines, gradient, effect.entropyGradient, scratch);
        addByRecord(block, own[kind], scratch);
      }
      for (let i = 0; i < size; i++) {
        if (effect.touched[i] === 0) continue;
        own.touched++;
        if (top !== undefined && top[i] === 1) own.touchedTop++;
      }
      touched.push(effect.touched);
      moved.push(distance);
    }
    addPairs(pairs, block, touched, moved);
  }
  const methods = sums.map((own): StepMeasures => {
    const figures = objectiveFigures(own.objective);
    return {
      touched: own.touched,
      touchedMass: totalOf(own.touchedMass),
      // Per-token losses: the weights of 1 over all tokens are taken back.
      gradient: totalOf(own.gradient) * batch.counted,
      moved: totalOf(own.moved) * batch.counted,
      steerChange: known ? totalOf(own.steer) : Number.NaN,
      exactChange: exact ? totalOf(own.exact) : Number.NaN,
      touchedTop: own.touchedTop,
      loss: figures.loss,
      clipFraction: figures.clipFraction,
      dualClipFraction: figures.dualClipFraction,
    };
  });
  return {
    counted: batch.counted,
    mass: totalOf(mass),
    entropy: known ? totalOf(entropies) / batch.counted : Number.NaN,
    topEntropyTokens: topTokens,
    methods,
    both: symmetric(count, (at) => pairs.both[at]),
    either: symmetric(count, (at) => pairs.either[at]),
    least: symmetric(count, (at) => totalOf(pairs.least[at])),
    most: symmetric(count, (at) => totalOf(pairs.most[at])),
  };
}

function masked(values: Float64Array, mask: Uint8Array): Float64Array {
  const out = new Float64Array(mask.length);
  for (let i = 0; i < mask.length; i++) if (mask[i] === 1) out[i] = values[i];
  return out;
}

/** Sums of every two methods; those of gradients with their rounding errors beside them. */
interface PairSums {
  readonly both: Float64Array;
  readonly either: Float64Array;
  readonly least: readonly CompensatedSum[];
  readonly most: readonly CompensatedSum[];
}

/** Adds what every two methods share on a block, record by record. */
function addPairs(
  pairs: PairSums,
  { offsets, records }: TokenBlock,
  touched: readonly Uint8Array[],
  moved: readonly Float64Array[],
): void {
  const count = touched.length;
  for (let a = 0; a < count; a++) {
    const touchedA = touched[a];
    const movedA = moved[a];
    for (let b = a; b < count; b++) {
      const touchedB = touched[b];
      const movedB = moved[b];
      const at = a * count + b;
      let both = 0;
      let either = 0;
      for (let r = 0; r < records.length; r++) {
        let least = 0;
        let most = 0;
        for (let i = offsets[r]; i < offsets[r + 1]; i++) {
          both += touchedA[i] & touchedB[i];
          either += touchedA[i] | touchedB[i];
          if (movedA[i] < movedB[i]) {
            least += movedA[i];
            most += movedB[i];
          } else {
            least += movedB[i];
            most += movedA[i];
          }
        }
        addTo(pairs.least[at], least);
        addTo(pairs.most[at], most);
      }
      pairs.both[at] += both;
      pairs.either[at] += either;
    }
  }
}

/** The matrix of an upper triangle. */
function symmetric(count: number, at: (place: number) => number): Float64Array {
  return Float64Array.from({ length: count * count }, (_, i) => {
    const [a, b] = [Math.floor(i / count), i % count];
    return at(Math.min(a, b) * count + Math.max(a, b));
  });
}
