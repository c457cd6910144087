import { type BatchSize, batchSizeOf, totalWeight } from '../aggregation.js';
import { addTo, type CompensatedSum, createCompensatedSum, totalOf } from '../compensated-sum.js';
import { type EntropyDirections, entropyDirections } from '../entropy-change-estimates.js';
import { addObjective, createObjectiveSums, type ObjectiveSums, objectiveFigures } from '../objective.js';
import type { RolloutIndex, RolloutStep, TokenBlock } from '../rollouts/types.js';
import { tokenRatios } from '../surrogate.js';
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

/** |A rho| of every token of a block under the dump's advantages, 0 under a mask of 0. */
function gradientMass(block: TokenBlock): Float64Array {
  const { mask, advantage } = block;
  const mass = new Float64Array(mask.length);
  if (advantage === undefined) return mass;
  const ratios = tokenRatios(block);
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 1 && advantage[i] !== 0) mass[i] = Math.abs(advantage[i]) * ratios[i];
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

/** What is known of a block before any method. */
interface BlockFacts {
  readonly masses: Float64Array;
  readonly steer: EntropyDirections | undefined;
  readonly exact: EntropyDirections | undefined;
  /** 1 where the entropy is among the highest. */
  readonly top: Uint8Array | undefined;
}

/** How far a method moves the gradient of a block. */
interface MovedBlock {
  /** [tokens] */
  readonly touched: Uint8Array;
  /** [tokens]: distance from plain GRPO's gradient. */
  readonly distance: Float64Array;
  /** [records]: sums of the distances. */
  readonly byRecord: Float64Array;
  readonly still: boolean;
}

/** -gradient * slope - entropy gradient * ascent, summed over the tokens of every record. */
function addChanges(
  { offsets, records }: TokenBlock,
  { slope, ascent }: EntropyDirections,
  gradient: Float64Array,
  entropyGradient: Float64Array | undefined,
  sum: CompensatedSum,
): void {
  for (let r = 0; r < records.length; r++) {
    let total = 0;
    for (let i = offsets[r]; i < offsets[r + 1]; i++) {
      let change = -gradient[i] * slope[i];
      if (entropyGradient !== undefined) change -= entropyGradient[i] * ascent[i];
      total += change;
    }
    addTo(sum, total);
  }
}

/**
 * Adds what a method makes of a block, record by record, so that blocks leave no trace.
 * @param gradient of the method, in the scale of all
 * @param plain gradient of plain GRPO
 */
function addMethod(
  own: MethodSums,
  block: TokenBlock,
  { masses, steer, exact, top }: BlockFacts,
  { touched, entropyGradient }: PolicyEffect,
  gradient: Float64Array,
  plain: Float64Array,
): MovedBlock {
  const { offsets, records } = block;
  const distance = new Float64Array(gradient.length);
  const byRecord = new Float64Array(records.length);
  let still = true;
  for (let r = 0; r < records.length; r++) {
    let size = 0;
    let moved = 0;
    let touchedMass = 0;
    for (let i = offsets[r]; i < offsets[r + 1]; i++) {
      const far = Math.abs(gradient[i] - plain[i]);
      distance[i] = far;
      size += Math.abs(gradient[i]);
      moved += far;
      if (touched[i] === 0) continue;
      touchedMass += masses[i];
      own.touched++;
      if (top !== undefined && top[i] === 1) own.touchedTop++;
    }
    byRecord[r] = moved;
    if (moved !== 0) still = false;
    addTo(own.gradient, size);
    addTo(own.moved, moved);
    addTo(own.touchedMass, touchedMass);
  }
  if (steer !== undefined) addChanges(block, steer, gradient, entropyGradient, own.steer);
  if (exact !== undefined) addChanges(block, exact, gradient, entropyGradient, own.exact);
  return { touched, distance, byRecord, still };
}

/** Compares all methods on one step: every block is read once beside what the methods themselves have read. */
export function compareStep({ step, index, prepared, topEntropy, sink }: StepContext): StepComparison {
  const batch = batchSizeOf(step, index);
  const count = prepared.length;
  const sums = prepared.map(() => createMethodSums(batch));
  const places = count * count;
  const pairs: PairSums = {
    both: new Float64Array(places),
    least: Array.from({ length: places }, createCompensatedSum),
    most: Array.from({ length: places }, createCompensatedSum),
  };
  const mass = createCompensatedSum();
  const entropies = createCompensatedSum();
  let known = true;
  let exact = true;
  let topTokens = 0;
  let gradient = new Float64Array(0);
  let plainGradient = gradient;
  for (const block of step.blocks()) {
    const size = block.mask.length;
    const facts: BlockFacts = {
      masses: gradientMass(block),
      steer: entropyDirections(block, 'steer'),
      exact: entropyDirections(block, 'exact'),
      top: topEntropy?.(block),
    };
    known &&= facts.steer !== undefined;
    exact &&= facts.exact !== undefined;
    addByRecord(block, mass, facts.masses);
    if (block.entropy) addByRecord(block, entropies, masked(block.entropy, block.mask));
    if (facts.top) for (const one of facts.top) topTokens += one;
    if (gradient.length < size) [gradient, plainGradient] = [new Float64Array(size), new Float64Array(size)];
    const moved: MovedBlock[] = [];
    for (let m = 0; m < count; m++) {
      const effect = prepared[m].effect(block);
      sink?.(m, block, effect);
      const own = (m === 0 ? plainGradient : gradient).subarray(0, size);
      addObjective(sums[m].objective, block, effect, { gradient: own });
      // One scale for all aggregations: weights that sum to 1 over the counted tokens.
      const scale = 1 / totalWeight(effect.aggregation, batch);
      for (let i = 0; i < size; i++) own[i] *= scale;
      moved.push(addMethod(sums[m], block, facts, effect, own, plainGradient));
    }
    addPairs(pairs, block, moved);
  }
  const touchedBy = (method: number): number => pairs.both[method * (count + 1)];
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
    either: symmetric(count, (at) => touchedBy(Math.floor(at / count)) + touchedBy(at % count) - pairs.both[at]),
    least: symmetric(count, (at) => totalOf(pairs.least[at])),
    most: symmetric(count, (at) => totalOf(pairs.most[at])),
  };
}

function masked(values: Float64Array, mask: Uint8Array): Float64Array {
  const out = new Float64Array(mask.length);
  for (let i = 0; i < mask.length; i++) if (mask[i] === 1) out[i] = values[i];
  return out;
}

/** Sums of every two methods, in the upper triangle; those of gradients with their rounding errors beside them. */
interface PairSums {
  readonly both: Float64Array;
  readonly least: readonly CompensatedSum[];
  readonly most: readonly CompensatedSum[];
}

function countBoth(a: Uint8Array, b: Uint8Array): number {
  let both = 0;
  for (let i = 0; i < a.length; i++) both += a[i] & b[i];
  return both;
}

/** Adds sums of the smaller and of the larger distances, record by record. */
function addExtremes(
  { offsets, records }: TokenBlock,
  a: MovedBlock,
  b: MovedBlock,
  leastSum: CompensatedSum,
  mostSum: CompensatedSum,
): void {
  // Where one of both moves nothing, the other's distances are the larger ones.
  if (a.still || b.still || a === b) {
    const larger = a.still ? b : a;
    for (const sum of larger.byRecord) addTo(mostSum, sum);
    if (a === b) for (const sum of a.byRecord) addTo(leastSum, sum);
    return;
  }
  for (let r = 0; r < records.length; r++) {
    let least = 0;
    let most = 0;
    for (let i = offsets[r]; i < offsets[r + 1]; i++) {
      const [x, y] = [a.distance[i], b.distance[i]];
      least += Math.min(x, y);
      most += Math.max(x, y);
    }
    addTo(leastSum, least);
    addTo(mostSum, most);
  }
}

/** Adds what every two methods share on a block. */
function addPairs(pairs: PairSums, block: TokenBlock, moved: readonly MovedBlock[]): void {
  const count = moved.length;
  for (let a = 0; a < count; a++) {
    for (let b = a; b < count; b++) {
      const at = a * count + b;
      pairs.both[at] += countBoth(moved[a].touched, moved[b].touched);
      addExtremes(block, moved[a], moved[b], pairs.least[at], pairs.most[at]);
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
