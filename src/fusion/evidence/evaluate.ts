import { InputError } from '../../errors.js';
import { createRandom } from '../../random.js';
import { allRows, canonicalRows } from './alloy-table.js';
import { contains } from './focal-sets.js';
import {
  DATA_SOURCE,
  type FusionSetup,
  fuseSources,
  otherRows,
  predictRows,
  type SourceScore,
  singleSourceModel,
  sourceNames,
} from './fuse-sources.js';
import { type LabelledPredictions, type LabelScores, scoreLabels } from './label-scores.js';
import type { Predictions } from './predict.js';

export const EVALUATIONS = ['random', 'leave-one-element-out', 'leave-one-out'] as const;
export type EvaluationKind = (typeof EVALUATIONS)[number];

export interface EvaluationSettings {
  readonly kind: EvaluationKind;
  /** Random splits: how many, and the share of the test rows. */
  readonly splits: number;
  readonly testShare: number;
}

interface Split {
  readonly name: string;
  readonly train: Int32Array;
  readonly test: Int32Array;
}

export interface SplitResult {
  readonly name: string;
  readonly trainRows: number;
  readonly testRows: number;
  readonly sources: readonly SourceScore[];
  /** Scores of every method on this split. */
  readonly scores: readonly LabelScores[];
}

/** Name of the method that uses all sources; without experts the data are all there is. */
export const FUSED = 'fused';

export interface EvaluationResult {
  readonly kind: EvaluationKind;
  /** The fusion first, then every source alone. */
  readonly methods: readonly string[];
  readonly splits: readonly SplitResult[];
  /** Scores over the predictions of all splits together, by method. */
  readonly pooled: readonly LabelScores[];
  /** Predictions of the first method over all splits. */
  readonly predictions: LabelledPredictions & { readonly rows: Int32Array; readonly evidence: Int32Array };
}

function splitsOf({ table, seed }: FusionSetup, { kind, splits, testShare }: EvaluationSettings): Split[] {
  const rows = allRows(table);
  if (kind === 'leave-one-element-out') {
    return table.elements.flatMap((name, e) => {
      const test = rows.filter((row) => contains(table.low[row], table.high[row], e));
      const train = otherRows(rows, test);
      return test.length > 0 && train.length > 1 ? [{ name, train, test }] : [];
    });
  }
  // Rows leave their own evidence out when they are predicted: one model serves all.
  if (kind === 'leave-one-out') return [{ name: 'all', train: rows, test: rows }];
  const ordered = canonicalRows(table, rows);
  const count = Math.round(testShare * rows.length);
  if (count < 1 || count > rows.length - 2) {
    throw new InputError(
      `--test-share ${testShare} of ${rows.length} alloys leaves ${count} to test and the rest to learn from`,
    );
  }
  const random = createRandom(seed).fork(2);
  return Array.from({ length: splits }, (_, s) => {
    const chosen = random.fork(s).permutation(rows.length).subarray(0, count);
    const test = Int32Array.from(chosen, (at) => ordered[at]).sort();
    return { name: `split ${s + 1}`, train: otherRows(rows, test), test };
  });
}

/** The method's own knowledge held against each of its sources, on rows that were not used. */
export function evaluate(
  setup: FusionSetup,
  settings: EvaluationSettings,
  progress: (done: number, of: number) => void = () => undefined,
): EvaluationResult {
  const splits = splitsOf(setup, settings);
  if (splits.length === 0) throw new InputError('no element whose alloys can be left out; use --evaluate random');
  const methods = setup.experts.length === 0 ? [DATA_SOURCE] : [FUSED, ...sourceNames(setup)];
  const collected = methods.map((): LabelledPredictions[] => []);
  const rows: Int32Array[] = [];
  const evidence: Int32Array[] = [];
  const results = splits.map(({ name, train, test }, s): SplitResult => {
    progress(s, splits.length);
    const fused = fuseSources(setup, train);
    const models = methods.map((method) => (method === FUSED ? fused.model : singleSourceModel(setup, train, method)));
    const scores = models.map((model, at) => {
      const predictions = predictRows(setup, model, test);
      if (at === 0) {
        rows.push(test);
        evidence.push(predictions.evidence);
      }
      const labelled = labelledPredictions(setup, test, predictions);
      collected[at].push(labelled);
      return scoreLabels(labelled);
    });
    return { name, trainRows: train.length, testRows: test.length, sources: fused.scores, scores };
  });
  const together = collected.map(joined);
  return {
    kind: settings.kind,
    methods,
    splits: results,
    pooled: together.map(scoreLabels),
    predictions: { ...together[0], rows: joinedInts(rows), evidence: joinedInts(evidence) },
  };
}

function labelledPredictions({ table }: FusionSetup, rows: Int32Array, predictions: Predictions): LabelledPredictions {
  const k = table.labelNames.length;
  return {
    truth: rows.map((row) => table.labels[row]),
    predicted: predictions.labels,
    probability: predictions.unknown.map((_, i) => predictions.probabilities[i * k]),
    unknown: predictions.unknown,
  };
}

const joinedInts = (parts: readonly Int32Array[]): Int32Array => Int32Array.from(parts.flatMap((part) => [...part]));

function joined(parts: readonly LabelledPredictions[]): LabelledPredictions {
  return {
    truth: joinedInts(parts.map(({ truth }) => truth)),
    predicted: joinedInts(parts.map(({ predicted }) => predicted)),
    probability: Float64Array.from(parts.flatMap(({ probability }) => [...probability])),
    unknown: Float64Array.from(parts.flatMap(({ unknown }) => [...unknown])),
  };
}
