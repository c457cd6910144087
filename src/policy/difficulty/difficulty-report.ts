import { pearson, pearsonError, spearman } from '../../linalg/correlation.js';
import type { Cell } from '../../report/csv.js';
import type { DumpReport } from '../rollouts/dump-report.js';
import type { DifficultyResult, ProbeFigures } from './difficulty-job.js';
import { classCounts, DIFFICULTIES } from './labels.js';
import { type ProbeScore, predictedClasses } from './probe.js';
import type { RoutedPolicy } from './routing.js';
import { budgetOf, STRATEGIES } from './strategies.js';

/** Name of the view's report and schema. */
export const DIFFICULTY_SCHEMA = 'policy-difficulty';

export const ASSIGNMENT_COLUMNS: readonly string[] = [
  ...['question', 'prompt_id', 'samples', 'accuracy', 'entropy_nats', 'mean_tokens', 'difficulty', 'level'],
  ...['label', 'p_easy', 'p_normal', 'p_hard', 'held_out', 'strategy', 'temperature', 'budget_tokens'],
];

export const CURVE_COLUMNS: readonly string[] = [
  'level',
  'questions',
  'entropy_mean_nats',
  'entropy_se_nats',
  'fitted_nats',
];

/** A row a question: what it was, what the probe says, and the decoding setting. Without a probe the label decides. */
export function* assignmentRows(result: DifficultyResult): Generator<readonly Cell[]> {
  const { questions, labels, levels, probabilities, isTest, meanTokens, mostTokens } = result;
  const routed = probabilities ? predictedClasses(probabilities, DIFFICULTIES.length) : labels;
  for (const [q, id] of questions.ids.entries()) {
    const name = DIFFICULTIES[routed[q]];
    const strategy = STRATEGIES[name];
    yield [
      ...[q, id, questions.samples[q], questions.accuracy[q], questions.entropyNats[q], meanTokens[q]],
      ...[questions.difficulty[q] ?? '', Number.isNaN(levels[q]) ? '' : levels[q], DIFFICULTIES[labels[q]]],
      ...DIFFICULTIES.map((_, c) => (probabilities ? probabilities[q * DIFFICULTIES.length + c] : '')),
      ...[probabilities ? isTest[q] : '', name, strategy.temperature, budgetOf(strategy, mostTokens)],
    ];
  }
}

const fitted = ([a, b, c]: readonly [number, number, number], x: number): number => a * x * x + b * x + c;

/** A row a level. */
export function* curveRows({ curve }: DifficultyResult): Generator<readonly Cell[]> {
  if (!curve) return;
  const { levels, counts, meanNats, standardErrorNats, quadratic } = curve.points;
  for (const [l, level] of levels.entries()) {
    yield [level, counts[l], meanNats[l], standardErrorNats[l], fitted(quadratic, level)];
  }
}

const scoreBody = (score: ProbeScore): object => ({
  questions: score.rows,
  accuracy: score.accuracy,
  accuracy_se: score.accuracySe,
  macro_f1: score.macroF1,
  cross_entropy_nats: score.crossEntropyNats,
  confusion: score.confusion,
});

const probeBody = (probe: ProbeFigures): object => ({
  source: probe.source,
  features: probe.features,
  hidden: probe.hidden,
  training: probe.trained && {
    held_in_memory: probe.trained.held,
    first_loss_nats: probe.trained.lossNats[0],
    last_loss_nats: probe.trained.lossNats.at(-1) ?? null,
    ...scoreBody(probe.trained.score),
  },
  test: scoreBody(probe.score),
  linear_test: probe.linear && scoreBody(probe.linear),
  majority_accuracy: probe.majorityAccuracy,
});

const policyBody = (policy: RoutedPolicy): object => ({
  name: policy.name,
  accuracy: policy.accuracy,
  accuracy_se: policy.accuracySe,
  mean_tokens: policy.meanTokens,
  token_saving: policy.tokenSaving,
  token_saving_low: policy.tokenSavingLow,
  token_saving_high: policy.tokenSavingHigh,
  accuracy_difference: policy.accuracyDifference,
  accuracy_difference_se: policy.accuracyDifferenceSe,
  picks: Object.fromEntries(DIFFICULTIES.map((name, c) => [name, policy.picks[c]])),
});

function curveBody({ curve }: DifficultyResult): object | null {
  if (!curve) return null;
  const { points, intervals } = curve;
  const pair = ([low, high]: readonly [number, number]): object => ({ low, high });
  return {
    levels: points.levels,
    questions: points.counts,
    entropy_mean_nats: points.meanNats,
    entropy_se_nats: points.standardErrorNats,
    quadratic: points.quadratic[0],
    linear: points.quadratic[1],
    constant: points.quadratic[2],
    argmin_level: points.argminLevel,
    vertex_level: points.vertex,
    drop_from_first: points.dropFromFirst,
    rise_to_last: points.riseToLast,
    interval_coverage: intervals.coverage,
    resamples: intervals.resamples,
    quadratic_interval: pair(intervals.quadratic),
    vertex_interval: pair(intervals.vertex),
    drop_interval: pair(intervals.dropFromFirst),
    rise_interval: pair(intervals.riseToLast),
    u_shaped: intervals.uShaped,
  };
}

/** Body of the report. */
export function difficultyBody(
  result: DifficultyResult,
): { readonly dump: DumpReport } & Readonly<Record<string, unknown>> {
  const { questions, thresholds, labels, mostTokens, routing } = result;
  const counts = classCounts(labels);
  const count = questions.ids.length;
  const r = pearson(questions.accuracy, questions.entropyNats);
  return {
    dump: result.dump,
    step: questions.step,
    questions: count,
    samples: questions.samples.reduce((sum, one) => sum + one, 0),
    thresholds: { alpha: thresholds.alpha, beta_nats: thresholds.beta, gamma: thresholds.gamma },
    classes: DIFFICULTIES.map((name, c) => ({ name, questions: counts[c], share: counts[c] / count })),
    entropy_and_accuracy: {
      pearson: r,
      pearson_se: pearsonError(r, count),
      spearman: spearman(questions.accuracy, questions.entropyNats),
    },
    curve: curveBody(result),
    probe: result.probe && probeBody(result.probe),
    strategies: DIFFICULTIES.map((name) => ({
      name,
      temperature: STRATEGIES[name].temperature,
      budget_tokens: budgetOf(STRATEGIES[name], mostTokens),
      instruction: STRATEGIES[name].instruction,
    })),
    routing: { basis: routing.basis, questions: routing.questions, policies: routing.policies.map(policyBody) },
    warnings: [...result.dump.warnings, ...result.warnings],
  };
}
