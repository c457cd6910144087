import { type BootstrapInterval, bootstrapDocuments } from '../linalg/bootstrap.js';
import type { Cell } from '../report/csv.js';
import { escapeToken } from '../report/escape.js';
import { numberOfReport, type ReportObject, type ReportValue, reportObject } from '../report/values.js';
import type { ScoredQuestion } from './choice-scoring.js';
import {
  type ChoiceNormalisation,
  type ChoiceResult,
  type ChoiceRow,
  type ChoiceSummary,
  CORRECT_UNDER,
  choiceRow,
  scoreChoices,
  summarizeChoices,
} from './choices.js';

export const CHOICES_SCHEMA = 'choices';

/** Columns of the table of questions. */
export const QUESTION_COLUMNS = [
  'document',
  'document_id',
  'choices',
  'answer',
  'prediction',
  'prediction_norm',
  'correct',
  'correct_norm',
  'correct_bytes',
  'correct_tokens',
  'entropy_nats',
  'normalized_entropy',
  'confidence',
  'margin',
  'brier',
  'gold_surprisal_nats',
  'context_tokens',
  'truncated_tokens',
] as const;

/** Columns of the table of choices. */
export const CHOICE_COLUMNS = [
  'document',
  'document_id',
  'choice',
  'text',
  'is_answer',
  'tokens',
  'characters',
  'bytes',
  'loglikelihood_nats',
  'probability',
] as const;

/** What the report needs of a question. */
export interface AnsweredQuestion {
  readonly row: ChoiceRow;
  readonly result: ChoiceResult;
  readonly scored: ScoredQuestion;
  readonly truncatedTokens: number;
}

/** Scores a question. */
export function answerQuestion(scored: ScoredQuestion, normalisation: ChoiceNormalisation): AnsweredQuestion {
  const { encoded, logLikelihoods } = scored;
  const { characters, bytes, tokens, question } = encoded;
  const result = scoreChoices({ logLikelihoods, characters, bytes, tokens, gold: question.gold }, normalisation);
  return {
    row: choiceRow(question.index, result),
    result,
    scored,
    truncatedTokens: Math.max(...encoded.windows.map(({ truncated }) => truncated)),
  };
}

/** A row of the table of questions. */
export function questionRow({ row, result, scored, truncatedTokens }: AnsweredQuestion): Cell[] {
  const { question, windows } = scored.encoded;
  return [
    question.index,
    question.id,
    row.choices,
    question.gold.join(' '),
    result.prediction,
    result.predictionByCharacter,
    row.correct,
    row.correctByCharacter,
    row.correctByByte,
    row.correctByToken,
    row.entropyNats,
    row.entropyNats / Math.log(row.choices),
    row.confidence,
    row.margin,
    row.brier,
    row.goldSurprisalNats,
    Math.max(...windows.map(({ scoreFrom }) => scoreFrom + 1)),
    truncatedTokens,
  ];
}

/** Rows of the table of choices. */
export function* choiceRows({ result, scored }: AnsweredQuestion): Generator<Cell[]> {
  const { question, characters, bytes, tokens } = scored.encoded;
  for (const [i, text] of question.choices.entries()) {
    yield [
      question.index,
      question.id,
      i,
      escapeToken(text),
      question.gold.includes(i),
      tokens[i],
      characters[i],
      bytes[i],
      scored.logLikelihoods[i],
      result.probabilities[i],
    ];
  }
}

/** Mergeable statistics of a run. */
export interface ChoicesStatistics {
  readonly rows: ChoiceRow[];
  truncatedQuestions: number;
}

/** Bins of the entropy over the choices as a share of log(choices). */
const ENTROPY_BINS = 20;

/** Body of the report of `analyze-entropy choices`. */
export interface ChoicesBody extends ChoiceSummary {
  readonly normalisation: ChoiceNormalisation;
  /** Questions of which a part of the context was cut off on the left. */
  readonly truncated_questions: number;
  /** Probability that of a wrongly and a rightly answered question the wrong one has the larger normalised entropy. */
  readonly entropy_auroc: number;
  readonly mean_normalized_entropy_when_right: number;
  readonly mean_normalized_entropy_when_wrong: number;
  readonly entropy_histograms: { bins: number; right: number[]; wrong: number[] };
  readonly intervals?: {
    level: number;
    resamples: number;
    units: number;
    seed: number;
    acc_norm: BootstrapInterval;
    mean_choice_entropy_nats: BootstrapInterval;
    brier_score: BootstrapInterval;
    expected_calibration_error: BootstrapInterval;
  };
}

const normalized = (row: ChoiceRow): number => row.entropyNats / Math.log(row.choices);

/** Area under the ROC curve by ranks, ties counted half. NaN when all answers are right, or all wrong. */
function entropyAuroc(rows: readonly ChoiceRow[], correct: (row: ChoiceRow) => boolean): number {
  const sorted = [...rows].sort((a, b) => normalized(a) - normalized(b));
  let rankSum = 0;
  let wrong = 0;
  for (let i = 0; i < sorted.length; ) {
    let j = i;
    while (j < sorted.length && normalized(sorted[j]) === normalized(sorted[i])) j++;
    for (let k = i; k < j; k++) {
      if (correct(sorted[k])) continue;
      wrong++;
      rankSum += (i + 1 + j) / 2;
    }
    i = j;
  }
  const right = rows.length - wrong;
  return (rankSum - (wrong * (wrong + 1)) / 2) / (wrong * right);
}

const CALIBRATION_BINS = 10;

/** Bootstrap over questions of what no closed form gives the error of. */
function intervalsOf(
  rows: readonly ChoiceRow[],
  seed: number,
  correct: (row: ChoiceRow) => boolean,
): ChoicesBody['intervals'] {
  const width = 4 + CALIBRATION_BINS;
  const sums = new Float64Array(rows.length * width);
  rows.forEach((row, i) => {
    const at = i * width;
    sums[at] = 1;
    sums[at + 1] = row.correctByCharacter ? 1 : 0;
    sums[at + 2] = row.entropyNats;
    sums[at + 3] = row.brier;
    const bin = Math.min(CALIBRATION_BINS - 1, Math.floor(row.confidence * CALIBRATION_BINS));
    sums[at + 4 + bin] = (correct(row) ? 1 : 0) - row.confidence;
  });
  const calibrationError = (totals: Float64Array): number => {
    let error = 0;
    for (let bin = 0; bin < CALIBRATION_BINS; bin++) error += Math.abs(totals[4 + bin]);
    return error / totals[0];
  };
  const mean = (column: number) => (totals: Float64Array) => totals[column] / totals[0];
  const found = bootstrapDocuments(sums, width, [mean(1), mean(2), mean(3), calibrationError], { seed });
  if (found.intervals === undefined) return undefined;
  const [accNorm, entropy, brier, calibration] = found.intervals;
  return {
    level: 0.95,
    resamples: found.resamples,
    units: found.units,
    seed,
    acc_norm: accNorm,
    mean_choice_entropy_nats: entropy,
    brier_score: brier,
    expected_calibration_error: calibration,
  };
}

/** Makes the body from the rows of all questions, in one process or united from shards. */
export function choicesBody(
  statistics: ChoicesStatistics,
  options: { readonly seed: number; readonly normalisation: ChoiceNormalisation; readonly allowEmpty?: boolean },
): ChoicesBody {
  const { seed, normalisation } = options;
  const rows = [...statistics.rows].sort((a, b) => a.index - b.index);
  const correct = (row: ChoiceRow): boolean => row[CORRECT_UNDER[normalisation]];
  const right = rows.filter(correct);
  const wrong = rows.filter((row) => !correct(row));
  const histogram = (of: readonly ChoiceRow[]): number[] => {
    const counts = new Array<number>(ENTROPY_BINS).fill(0);
    for (const row of of) counts[Math.min(ENTROPY_BINS - 1, Math.floor(normalized(row) * ENTROPY_BINS))]++;
    return counts;
  };
  const mean = (of: readonly ChoiceRow[]): number => of.reduce((sum, row) => sum + normalized(row), 0) / of.length;
  const intervals = intervalsOf(rows, seed, correct);
  return {
    normalisation,
    ...summarizeChoices(rows, options),
    truncated_questions: statistics.truncatedQuestions,
    entropy_auroc: entropyAuroc(rows, correct),
    mean_normalized_entropy_when_right: mean(right),
    mean_normalized_entropy_when_wrong: mean(wrong),
    entropy_histograms: { bins: ENTROPY_BINS, right: histogram(right), wrong: histogram(wrong) },
    ...(intervals && { intervals }),
  };
}

interface ChoicesPartial {
  rows: (Omit<ChoiceRow, 'goldSurprisalNats'> & { goldSurprisalNats: unknown })[];
  truncated_questions: number;
}

/** The mergeable part of a shard's report. */
export function choicesPartial({ rows, truncatedQuestions }: ChoicesStatistics): ReportValue {
  return reportObject({ rows, truncated_questions: truncatedQuestions });
}

/** Unites the shards of a run; the bytes are those of a run without shards. */
export function mergeChoicesReports(
  parts: readonly { readonly report: Readonly<Record<string, unknown>>; readonly partial: unknown }[],
): ReportObject {
  const partials = parts.map(({ partial }) => partial as ChoicesPartial);
  const rows = partials.flatMap((partial) =>
    partial.rows.map(
      (row): ChoiceRow => ({ ...row, goldSurprisalNats: numberOfReport(row.goldSurprisalNats) ?? Number.NaN }),
    ),
  );
  const truncatedQuestions = partials.reduce((sum, partial) => sum + partial.truncated_questions, 0);
  const { parameters, normalisation } = parts[0].report as {
    parameters: { seed: number };
    normalisation: ChoiceNormalisation;
  };
  return reportObject(choicesBody({ rows, truncatedQuestions }, { seed: parameters.seed, normalisation }));
}
