import type { Cell } from '../../report/csv.js';
import { nameAt } from './alloy-table.js';
import type { AlloysResult } from './alloys-job.js';
import type { EvaluationResult } from './evaluate.js';
import { setName } from './focal-sets.js';
import { CALIBRATION_BINS, calibrationBins, errorByUnknown, type LabelScores, meanAndError } from './label-scores.js';
import { STRONGEST } from './predict.js';

/** Name of the report's schema. */
export const ALLOYS_SCHEMA = 'fuse-evidence-alloys';

/** Columns of `--out`: the probability is that of the label of interest. */
export const candidateColumns = (labels: readonly string[]): string[] => [
  ...['set', ...labels.map((label) => `m_${label}`), 'm_unknown', `P_${labels[0].toLowerCase()}`, 'label'],
  ...['n_evidence', 'conflict', 'in_data', 'analogy_1', 'analogy_2', 'analogy_3'],
];
export const HELD_OUT_COLUMNS = ['set', 'label', 'predicted', 'probability', 'm_unknown', 'n_evidence'];
export const SUBSTITUTION_COLUMNS = [
  ...['t', 'v', 'n_similar', 'n_dissimilar', 'm_similar', 'm_dissimilar', 'm_unknown', 'conflict'],
];

const orNull = (value: number): number | null => (Number.isNaN(value) ? null : value);

function scoresBody(scores: LabelScores) {
  return {
    rows: scores.rows,
    accuracy: orNull(scores.accuracy),
    accuracy_se: orNull(scores.accuracySe),
    rows_with_evidence: scores.decided,
    accuracy_with_evidence: orNull(scores.decidedAccuracy),
    accuracy_with_evidence_se: orNull(scores.decidedAccuracySe),
    majority_accuracy: orNull(scores.majorityAccuracy),
    macro_f1: orNull(scores.macroF1),
    auc: orNull(scores.auc),
    auc_se: orNull(scores.aucSe),
    brier: orNull(scores.brier),
    brier_se: orNull(scores.brierSe),
    calibration_error: orNull(scores.calibrationError),
  };
}

const ACROSS = {
  accuracy: (scores: LabelScores) => scores.accuracy,
  accuracy_with_evidence: (scores: LabelScores) => scores.decidedAccuracy,
  macro_f1: (scores: LabelScores) => scores.macroF1,
  auc: (scores: LabelScores) => scores.auc,
  brier: (scores: LabelScores) => scores.brier,
} as const;

/** Means over the splits, which may share rows, with the standard error over splits. */
function acrossSplits(all: readonly LabelScores[]) {
  return Object.fromEntries(
    Object.entries(ACROSS).flatMap(([name, of]) => {
      const { mean, se } = meanAndError(all.map(of));
      return [
        [name, orNull(mean)],
        [`${name}_se`, orNull(se)],
      ];
    }),
  );
}

function binsBody(bins: ReturnType<typeof calibrationBins>) {
  return bins.map(({ rows, predicted, observed, standardError }) => ({
    rows,
    mean: orNull(predicted),
    share: orNull(observed),
    share_se: orNull(standardError),
  }));
}

function evaluationBody({ kind, methods, splits, pooled, predictions }: EvaluationResult) {
  return {
    kind,
    methods: methods.map((name, m) => ({
      name,
      pooled: scoresBody(pooled[m]),
      across_splits: acrossSplits(splits.map(({ scores }) => scores[m])),
    })),
    splits: splits.map(({ name, trainRows, testRows, sources, scores }) => ({
      name,
      train_rows: trainRows,
      test_rows: testRows,
      source_scores: Object.fromEntries(sources.map((source) => [source.name, source.score])),
      scores: scores.map((found, m) => ({ method: methods[m], ...scoresBody(found) })),
    })),
    calibration: binsBody(calibrationBins(predictions)),
    error_by_unknown: binsBody(errorByUnknown(predictions)),
  };
}

/** Counts of a value from 0 to 1 in ten equal bins. */
export function tenths(values: Iterable<number>): Int32Array {
  const counts = new Int32Array(CALIBRATION_BINS);
  for (const value of values) counts[Math.min(CALIBRATION_BINS - 1, Math.floor(value * CALIBRATION_BINS))]++;
  return counts;
}

/** Conflict of the combination behind every candidate. */
export const candidateConflicts = ({ candidates }: AlloysResult): number[] =>
  candidates === undefined ? [] : Array.from(candidates.predictions.logAgreement, (log) => 0 - Math.expm1(log));

/** Body of the report. */
export function alloysBody(result: AlloysResult) {
  const { elements, labelNames, labelCounts, substitutions, matrices, sources, candidates, evaluation } = result;
  const n = elements.length;
  const rows = labelCounts.reduce((sum, count) => sum + count, 0);
  const matrix = (values: Float64Array): Float64Array[] => elements.map((_, e) => values.subarray(e * n, (e + 1) * n));
  return {
    alloys: rows,
    elements: [...elements],
    labels: labelNames.map((name, l) => ({ name, alloys: labelCounts[l] })),
    weighted: result.weighted,
    repeated_sets: result.duplicates.sets,
    disagreeing_sets: result.duplicates.disagreeing,
    pieces_of_evidence: result.pieces,
    substitutions: substitutions.length,
    sources: sources.map(({ name, score, standardError, by }) => ({
      name,
      score,
      score_se: orNull(standardError),
      by,
    })),
    similarity: matrix(matrices.similar),
    dissimilarity: matrix(matrices.dissimilar),
    unknown: matrix(matrices.unknown),
    element_order: Array.from(matrices.order, (e) => elements[e]),
    merges: matrices.merges.map(({ i, j, distance }) => ({ first: elements[i], second: elements[j], distance })),
    clusters: matrices.clusters === undefined ? null : clusterBody(elements, matrices.clusters),
    substitution_conflict_tenths: tenths(substitutions.map(({ conflict }) => conflict)),
    candidates:
      candidates === undefined
        ? null
        : {
            rows: candidates.predictions.unknown.length,
            in_data: candidates.known.reduce((sum, known) => sum + known, 0),
            with_evidence: candidates.predictions.unknown.filter((unknown) => unknown < 1).length,
            labels: labelNames.map((name, l) => ({
              name,
              rows: candidates.predictions.labels.filter((label) => label === l).length,
            })),
            conflict_tenths: tenths(candidateConflicts(result)),
          },
    evaluation: evaluation === undefined ? null : evaluationBody(evaluation),
    warnings: [...result.warnings],
  };
}

function clusterBody(elements: readonly string[], clusters: Int32Array): string[][] {
  return [...new Set(clusters)].map((cluster) => elements.filter((_, e) => clusters[e] === cluster));
}

/** Rows of `--out`. */
export function* candidateRows(result: AlloysResult): Generator<readonly Cell[], void, undefined> {
  const { candidates, labelNames } = result;
  if (candidates === undefined) return;
  const { sets, predictions, analogies, known } = candidates;
  const conflicts = candidateConflicts(result);
  const k = labelNames.length;
  for (let i = 0; i < predictions.unknown.length; i++) {
    yield [
      nameAt(sets, i),
      ...predictions.masses.subarray(i * k, (i + 1) * k),
      ...[predictions.unknown[i], predictions.probabilities[i * k], labelNames[predictions.labels[i]]],
      ...[predictions.evidence[i], conflicts[i], known[i]],
      ...analogies.slice(i * STRONGEST, (i + 1) * STRONGEST),
    ];
  }
}

/** Rows of `--table`: predictions of alloys that were held out. */
export function* heldOutRows(
  { evaluation, labelNames, elements }: AlloysResult,
  table: { readonly low: Int32Array; readonly high: Int32Array },
): Generator<readonly Cell[], void, undefined> {
  if (evaluation === undefined) return;
  const { rows, truth, predicted, probability, unknown, evidence } = evaluation.predictions;
  for (let i = 0; i < rows.length; i++) {
    const set = setName(elements, table.low[rows[i]], table.high[rows[i]]);
    yield [set, labelNames[truth[i]], labelNames[predicted[i]], probability[i], unknown[i], evidence[i]];
  }
}

/** Rows of `--substitution`. */
export function* substitutionRows({ substitutions }: AlloysResult): Generator<readonly Cell[], void, undefined> {
  for (const { t, v, similarPieces, dissimilarPieces, similar, dissimilar, conflict } of substitutions) {
    const rest = Math.max(0, 1 - similar - dissimilar);
    yield [t, v, similarPieces, dissimilarPieces, similar, dissimilar, rest, conflict];
  }
}
