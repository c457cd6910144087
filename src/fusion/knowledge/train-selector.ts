/** The selector of Fusion-X fitted to cross-entropies of sequences alone, without a model in the loop. */
import { createRandom } from '../../random.js';
import { createDataOrder } from '../../training/data-order.js';
import { createOptimizer } from '../../training/optimizer.js';
import type { ParameterSet } from '../../training/types.js';
import { avgCeWeights, isNearTie, minCeChoice, minCeWeights } from './fusion-functions.js';
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

export interface SelectorSettings {
  readonly threshold: number;
  readonly feedbackWeight: number;
  /** λ of the whole loss: cross-entropies count 1 - λ. */
  readonly lambda: number;
  readonly steps: number;
  readonly batchSize: number;
  readonly learningRate: number;
  readonly seed: number;
}

/** What a gate makes of the sequences. */
export interface SelectionFigures {
  /** Mean of Σ_k w_k ce_k: no less than the cross-entropy of the fused target with the text. */
  readonly weightedCe: number;
  readonly importance: Float64Array;
  readonly feedback: number;
  /** [models] share of sequences that keep each model. */
  readonly selectionShares: number[];
  readonly effectiveSources: number;
  readonly entropy: number;
  readonly fusedScore: number;
}

export interface SelectorStep {
  readonly step: number;
  readonly loss: number;
  readonly feedback: number;
  /** [models] shares of the weights of the batch. */
  readonly shares: number[];
}

export interface TrainedSelector {
  readonly gate: Float64Array;
  readonly before: SelectionFigures;
  readonly after: SelectionFigures;
  readonly curve: readonly SelectorStep[];
}

/** What the methods without a gate make of the sequences. */
export interface SelectionBaselines {
  readonly leastCe: number;
  readonly averageCe: number;
  readonly meanCe: number[];
  readonly leastCeShares: number[];
  readonly nearTies: number;
}

const START = 0x67617465;

const row = (ces: readonly Float64Array[], s: number): number[] => ces.map((of) => of[s]);
const meanOver = (count: number, of: (s: number) => number): number => {
  let sum = 0;
  for (let s = 0; s < count; s++) sum += of(s);
  return sum / count;
};
const weighted = (weights: ArrayLike<number>, values: readonly number[]): number =>
  values.reduce((sum, value, k) => sum + weights[k] * value, 0);

/** Figures of a gate on all sequences. @param ces [models][sequences] nats */
export function selectionFigures(
  gate: Float64Array,
  ces: readonly Float64Array[],
  threshold: number,
): { readonly figures: SelectionFigures; readonly selections: readonly Selection[] } {
  const count = ces[0].length;
  const selections = Array.from({ length: count }, (_, s) =>
    selectSources(gate, sequenceScores(row(ces, s), `sequence ${s}`), threshold),
  );
  const importance = importanceOf(
    selections.map(({ weights }) => weights),
    ces.length,
  );
  const entropies = selections.map(({ weights }) => selectionEntropy(weights));
  return {
    selections,
    figures: {
      weightedCe: meanOver(count, (s) => weighted(selections[s].weights, row(ces, s))),
      importance,
      feedback: feedbackLoss(importance).value,
      selectionShares: ces.map((_, k) => meanOver(count, (s) => selections[s].kept[k])),
      effectiveSources: meanOver(count, (s) => Math.exp(entropies[s])),
      entropy: meanOver(count, (s) => entropies[s]),
      fusedScore: meanOver(count, (s) => selections[s].fusedScore),
    },
  };
}

export function selectionBaselines(ces: readonly Float64Array[], nearTie: number): SelectionBaselines {
  const count = ces[0].length;
  return {
    leastCe: meanOver(count, (s) => weighted(minCeWeights(row(ces, s)), row(ces, s))),
    averageCe: meanOver(count, (s) => weighted(avgCeWeights(row(ces, s)), row(ces, s))),
    meanCe: ces.map((of) => meanOver(count, (s) => of[s])),
    leastCeShares: ces.map((_, k) => meanOver(count, (s) => (minCeChoice(row(ces, s)) === k ? 1 : 0))),
    nearTies: meanOver(count, (s) => (isNearTie(row(ces, s), nearTie) ? 1 : 0)),
  };
}

/**
 * Makes (1 - λ) mean_s Σ_k w_k ce_k + feedbackWeight L_fb small over batches of sequences, by Adam. The first term bounds
 * the cross-entropy of the fused target with the text from above (-ln is convex); the feedback loss is that of a batch.
 * @param ces [models][sequences] nats, from 0 on
 * @throws InputError for cross-entropies that are none
 */
export function trainSelector(ces: readonly Float64Array[], settings: SelectorSettings): TrainedSelector {
  const { threshold, feedbackWeight, lambda, steps, batchSize, learningRate, seed } = settings;
  const models = ces.length;
  const values = initialGate(models, createRandom(seed).fork(START));
  const set: ParameterSet = {
    precision: 'f64',
    parameters: gateTensors(models),
    values,
    gradients: new Float64Array(gateSize(models)),
  };
  const before = selectionFigures(values, ces, threshold).figures;
  const optimizer = createOptimizer(set, { method: 'adam' });
  const order = createDataOrder({ count: ces[0].length, batchSize, seed });
  const curve: SelectorStep[] = [];
  for (let step = 1; step <= steps; step++) {
    const sequences = order.items(step - 1);
    const selections = Array.from(sequences, (s) =>
      selectSources(values, sequenceScores(row(ces, s), `sequence ${s}`), threshold),
    );
    const importance = importanceOf(
      selections.map(({ weights }) => weights),
      models,
    );
    const feedback = feedbackLoss(importance);
    let loss = feedbackWeight * feedback.value;
    selections.forEach((selection, i) => {
      const own = row(ces, sequences[i]);
      const share = (1 - lambda) / sequences.length;
      loss += share * weighted(selection.weights, own);
      const slope = own.map((ce, k) => share * ce + feedbackWeight * feedback.slope[k]);
      selectSourcesBackward(values, selection, slope, set.gradients);
    });
    optimizer.step({ learningRate, clear: true });
    const sum = importance.reduce((a, b) => a + b, 0);
    curve.push({ step, loss, feedback: feedback.value, shares: Array.from(importance, (value) => value / sum) });
  }
  return { gate: values, before, after: selectionFigures(values, ces, threshold).figures, curve };
}

/** What models think likeliest at positions of sequences. */
export interface LikeliestTokens {
  readonly sequences: Int32Array;
  readonly labels: Int32Array;
  /** [models][positions] */
  readonly tokens: readonly Int32Array[];
  /** [models][positions] their probabilities. */
  readonly probabilities: readonly Float64Array[];
}

/**
 * Share of positions at which the likeliest of the fused tokens is wrong while that of a kept model is right. A token
 * has the weighted sum of the probabilities of the models that think it likeliest; among equals the first model's wins.
 * @param weights [sequences]
 */
export function interferenceOf(positions: LikeliestTokens, weights: readonly Float64Array[]): number {
  const { sequences, labels, tokens, probabilities } = positions;
  let wrong = 0;
  labels.forEach((label, t) => {
    const own = weights[sequences[t]];
    const mass = new Map<number, number>();
    let right = false;
    own.forEach((weight, k) => {
      if (weight === 0) return;
      mass.set(tokens[k][t], (mass.get(tokens[k][t]) ?? 0) + weight * probabilities[k][t]);
      right ||= tokens[k][t] === label;
    });
    const most = Math.max(...mass.values());
    const fused = [...mass].find(([, value]) => value === most)?.[0];
    if (right && fused !== label) wrong++;
  });
  return wrong / labels.length;
}

/** Interference with the first K models, for K from 2 on. */
export interface InterferenceRow {
  readonly sources: number;
  readonly mince: number;
  readonly avgce: number;
  readonly selected: number;
}

/** Fits a gate to the first K models for every K, and compares it with MinCE and AvgCE. */
export function interferenceByCount(
  ces: readonly Float64Array[],
  positions: LikeliestTokens,
  settings: SelectorSettings,
): InterferenceRow[] {
  return Array.from({ length: ces.length - 1 }, (_, i) => {
    const sources = i + 2;
    const some = ces.slice(0, sources);
    const { gate } = trainSelector(some, settings);
    const { selections } = selectionFigures(gate, some, settings.threshold);
    const fixed = (of: (ces: number[]) => Float64Array): Float64Array[] =>
      Array.from({ length: ces[0].length }, (__, s) => of(row(some, s)));
    return {
      sources,
      mince: interferenceOf(positions, fixed(minCeWeights)),
      avgce: interferenceOf(positions, fixed(avgCeWeights)),
      selected: interferenceOf(
        positions,
        selections.map(({ weights }) => weights),
      ),
    };
  });
}
