import { InputError } from '../../errors.js';
import type { FeatureMatrix, FeatureSource } from '../../formats/feature-matrix.js';
import { loadMatrix } from '../../formats/feature-matrix.js';
import type { ComputeReference } from '../../kernels/compute-thread.js';
import { applyProbe, fitLogisticProbe } from '../../linalg/linear-probe.js';
import { createRandom } from '../../random.js';
import { type DumpReport, dumpReport } from '../rollouts/dump-report.js';
import { openRollouts } from '../rollouts/open-rollouts.js';
import type { RolloutRequest } from '../rollouts/types.js';
import {
  checkClasses,
  classCounts,
  DIFFICULTIES,
  type Difficulty,
  type LabelThresholds,
  labelThresholds,
  proxyLabels,
} from './labels.js';
import {
  type DifficultyProbe,
  type ProbeScore,
  predictedClasses,
  probeLogits,
  scoreProbabilities,
  softmaxRows,
} from './probe.js';
import { probeBytes, readProbe } from './probe-file.js';
import type { ProbeSettings } from './probe-settings.js';
import { levelsOf, type Questions, questionsOf } from './questions.js';
import { comparePolicies, type RoutedPolicy } from './routing.js';
import { budgetOf, STRATEGIES, type StrategyOutcome, truncatedOutcome } from './strategies.js';
import { trainProbe } from './train-probe.js';
import { type UCurve, type UCurveIntervals, uCurve, uCurveIntervals } from './u-curve.js';

/** What the view was asked for. */
export interface DifficultyRequest {
  readonly rollouts: RolloutRequest;
  readonly step?: number;
  /** Names of difficulties from the easiest on, where they hold no numbers. */
  readonly levels?: readonly string[];
  readonly thresholds: Partial<LabelThresholds>;
  /** Hidden states [questions, width] in the order of the questions; computed from the model where there is one and this is absent. */
  readonly hidden?: FeatureSource;
  readonly train: ProbeSettings;
  /** Share of the questions that the probe is judged on. */
  readonly testShare: number;
  /** A probe that was trained before: nothing is trained. */
  readonly probe?: string;
  /** Dumps of the same questions under the strategies. */
  readonly outcomes?: Readonly<Record<Difficulty, RolloutRequest>>;
  /** Token budget of the normal strategy; the longest response where absent. */
  readonly mostTokens?: number;
  readonly seed: number;
}

/** What is said of the probe. */
export interface ProbeFigures {
  readonly features: number;
  readonly hidden: number;
  readonly source: string;
  readonly trained: {
    readonly questions: number;
    readonly held: boolean;
    readonly lossNats: Float64Array;
    readonly score: ProbeScore;
  } | null;
  readonly testQuestions: number;
  readonly score: ProbeScore;
  /** Logistic regression on the same features and split; null where it would not fit into memory, or nothing was trained. */
  readonly linear: ProbeScore | null;
  /** Accuracy of always naming the commonest class of the training split, on the test split. */
  readonly majorityAccuracy: number;
}

export interface DifficultyResult {
  readonly dump: DumpReport;
  readonly questions: Omit<Questions, 'lengths' | 'correct'>;
  /** Mean tokens of a sample of every question. */
  readonly meanTokens: Float64Array;
  readonly levels: Float64Array;
  readonly thresholds: LabelThresholds;
  readonly labels: Uint8Array;
  readonly curve: { readonly points: UCurve; readonly intervals: UCurveIntervals } | null;
  readonly probe: ProbeFigures | null;
  /** [questions, 3] of the probe, and 1 where the question was held out. */
  readonly probabilities: Float64Array | null;
  readonly isTest: Uint8Array;
  readonly mostTokens: number;
  readonly routing: {
    readonly basis: 'measured' | 'truncated';
    readonly questions: number;
    readonly policies: readonly RoutedPolicy[];
  };
  readonly probeFile: Uint8Array | null;
  readonly warnings: readonly string[];
}

/** Ridge of the linear baseline. */
const LINEAR_DECAY = 1e-2;
const COMMON_QUESTIONS = 2;

/** Questions that are held out: the same share of every class. */
function splitQuestions(labels: Uint8Array, share: number, seed: number): Uint8Array {
  const isTest = new Uint8Array(labels.length);
  const random = createRandom(seed).fork(0x73706c69);
  for (const c of DIFFICULTIES.keys()) {
    const own = [...labels.keys()].filter((q) => labels[q] === c);
    const order = random.fork(c).permutation(own.length);
    const held = Math.min(own.length - 1, Math.max(1, Math.round(share * own.length)));
    for (let i = 0; i < held; i++) isTest[own[order[i]]] = 1;
  }
  return isTest;
}

const rowsOf = (isTest: Uint8Array, wanted: 0 | 1): Int32Array =>
  Int32Array.from([...isTest.keys()].filter((q) => isTest[q] === wanted));

/** Probabilities of the probe for all rows, in blocks. */
function predictAll(matrix: FeatureMatrix, probe: DifficultyProbe): Float64Array {
  const BLOCK = 4096;
  const all = new Float64Array(matrix.rows * probe.classes);
  const block = new Float32Array(Math.min(BLOCK, matrix.rows) * matrix.columns);
  for (let start = 0; start < matrix.rows; start += BLOCK) {
    const rows = Math.min(BLOCK, matrix.rows - start);
    matrix.readRows(start, rows, block);
    all.set(softmaxRows(probeLogits(probe, block, rows), probe.classes), start * probe.classes);
  }
  return all;
}

const pick = (probabilities: Float64Array, rows: Int32Array): Float64Array =>
  Float64Array.from({ length: rows.length * DIFFICULTIES.length }, (_, i) => {
    const c = i % DIFFICULTIES.length;
    return probabilities[rows[(i - c) / DIFFICULTIES.length] * DIFFICULTIES.length + c];
  });

function linearProbabilities(
  matrix: FeatureMatrix,
  labels: Uint8Array,
  train: Int32Array,
  limit: number,
): Float64Array | null {
  if (matrix.rows * matrix.columns * 32 > limit) return null;
  const classes = DIFFICULTIES.length;
  const own = Uint8Array.from(train, (q) => labels[q]);
  const probe = fitLogisticProbe(loadMatrix(matrix, train), own, train.length, matrix.columns, classes, LINEAR_DECAY);
  return softmaxRows(applyProbe(probe, loadMatrix(matrix), matrix.rows), classes);
}

interface Judged {
  readonly figures: ProbeFigures;
  readonly probabilities: Float64Array;
  readonly linear: Float64Array | null;
  readonly file: Uint8Array | null;
}

async function judgeProbe(
  matrix: FeatureMatrix,
  labels: Uint8Array,
  isTest: Uint8Array,
  request: DifficultyRequest,
): Promise<Judged> {
  const classes = DIFFICULTIES.length;
  const [train, test] = [rowsOf(isTest, 0), rowsOf(isTest, 1)];
  const stored = request.probe === undefined ? undefined : readProbe(request.probe);
  if (stored && stored.features !== matrix.columns) {
    throw new InputError(
      `${request.probe}: a probe of ${stored.features} features, ${matrix.name} has ${matrix.columns}`,
    );
  }
  const trained = stored ? undefined : await trainProbe(matrix, labels, train, classes, request.train);
  const probe = stored ?? (trained?.probe as DifficultyProbe);
  const probabilities = predictAll(matrix, probe);
  const score = (of: Float64Array, rows: Int32Array): ProbeScore =>
    scoreProbabilities(
      pick(of, rows),
      Uint8Array.from(rows, (q) => labels[q]),
      classes,
    );
  const linear = stored ? null : linearProbabilities(matrix, labels, train, request.train.holdBytes);
  const counts = classCounts(Uint8Array.from(train.length > 0 ? train : test, (q) => labels[q]));
  const commonest = counts.indexOf(Math.max(...counts));
  return {
    probabilities,
    linear,
    file: stored ? null : probeBytes(probe),
    figures: {
      ...{ features: probe.features, hidden: probe.hidden, source: matrix.name },
      trained: trained
        ? {
            questions: train.length,
            held: trained.held,
            lossNats: trained.lossNats,
            score: score(probabilities, train),
          }
        : null,
      testQuestions: test.length,
      score: score(probabilities, test),
      linear: linear && score(linear, test),
      majorityAccuracy: test.reduce((sum, q) => sum + Number(labels[q] === commonest), 0) / test.length,
    },
  };
}

/** [strategies][questions] of the dumps of the strategies, for the questions that all of them have. */
async function measuredOutcomes(
  questions: Questions,
  dumps: Readonly<Record<Difficulty, RolloutRequest>>,
): Promise<{ outcomes: StrategyOutcome[][]; common: number[] }> {
  const tables: Map<string, StrategyOutcome>[] = [];
  for (const name of DIFFICULTIES) {
    const rollouts = await openRollouts(dumps[name]);
    try {
      const own = questionsOf(rollouts, undefined, false);
      tables.push(
        new Map(
          own.ids.map(
            (id, q) => [id, truncatedOutcome(own.lengths[q], own.correct[q], Number.POSITIVE_INFINITY)] as const,
          ),
        ),
      );
    } finally {
      rollouts.close();
    }
  }
  const common = questions.ids.flatMap((id, q) => (tables.every((table) => table.has(id)) ? [q] : []));
  if (common.length < COMMON_QUESTIONS) {
    throw new InputError(
      `the dumps of the strategies have ${common.length} questions in common with the dump; their prompt_id must agree`,
    );
  }
  return {
    common,
    outcomes: tables.map((table) => common.map((q) => table.get(questions.ids[q]) as StrategyOutcome)),
  };
}

const longest = (questions: Questions): number =>
  questions.lengths.reduce((most, lengths) => Math.max(most, ...lengths), 0);

/** Runs in a thread: the whole view. @throws InputError */
export async function difficultyJob(
  request: DifficultyRequest,
  progress: (value: unknown) => void,
): Promise<DifficultyResult> {
  const rollouts = await openRollouts(request.rollouts, progress);
  try {
    const questions = questionsOf(rollouts, request.step, true);
    const count = questions.ids.length;
    const warnings: string[] = [];
    if (rollouts.steps.length > 1)
      warnings.push(
        `the dump has ${rollouts.steps.length} steps; questions are those of step ${questions.step} (--step)`,
      );
    const thresholds = labelThresholds(questions.accuracy, questions.entropyNats, request.thresholds);
    const labels = proxyLabels(questions.accuracy, questions.entropyNats, thresholds);
    checkClasses(classCounts(labels), thresholds);
    const isTest =
      request.probe === undefined
        ? splitQuestions(labels, request.testShare, request.seed)
        : new Uint8Array(count).fill(1);

    const matrix = await featuresOf(rollouts, questions, request, progress);
    if (!matrix && request.probe !== undefined)
      throw new InputError(
        '--probe reads hidden states: give them with --hidden, or a --model and a dump with prompts',
      );
    if (!matrix && request.rollouts.model !== undefined)
      warnings.push('the dump has no texts of prompts: there is no probe on their hidden states');
    const judged = matrix && (await judgeProbe(matrix, labels, isTest, request));
    matrix?.close();

    const mostTokens = request.mostTokens ?? longest(questions);
    const measured = request.outcomes && (await measuredOutcomes(questions, request.outcomes));
    const asked = judged ? rowsOf(isTest, 1) : Int32Array.from({ length: count }, (_, q) => q);
    const chosen = measured ? [...asked].filter((q) => measured.common.includes(q)) : [...asked];
    if (chosen.length < COMMON_QUESTIONS)
      throw new InputError(
        `${chosen.length} questions to compare strategies on; give more questions, or a larger --test-share`,
      );
    const outcomes = DIFFICULTIES.map((name, s) =>
      chosen.map((q) =>
        measured
          ? measured.outcomes[s][measured.common.indexOf(q)]
          : truncatedOutcome(questions.lengths[q], questions.correct[q], budgetOf(STRATEGIES[name], mostTokens)),
      ),
    );
    const routes = new Map<string, ArrayLike<number>>();
    const classesOf = (of: Float64Array): Uint8Array =>
      predictedClasses(pick(of, Int32Array.from(chosen)), DIFFICULTIES.length);
    if (judged) routes.set('probe', classesOf(judged.probabilities));
    if (judged?.linear) routes.set('linear probe', classesOf(judged.linear));
    routes.set(
      'proxy labels',
      chosen.map((q) => labels[q]),
    );
    if (!measured) {
      warnings.push(
        'savings are those of budgets alone, on samples that were drawn without them: temperature and instruction of a strategy are not in them; give dumps of the strategies with --strategy',
      );
    }

    const levels = levelsOf(questions.difficulty, request.levels);
    const rated = [...levels.keys()].filter((q) => !Number.isNaN(levels[q]));
    const [ratedLevels, ratedEntropies] = [levels, questions.entropyNats].map((of) =>
      Float64Array.from(rated, (q) => of[q]),
    );
    const distinct = new Set(ratedLevels).size;
    if (distinct > 0 && distinct < 3) warnings.push(`${distinct} levels of difficulty: a curve needs at least 3`);
    const { lengths, correct: _, ...told } = questions;
    return {
      dump: dumpReport(rollouts),
      questions: told,
      meanTokens: Float64Array.from(lengths, (own) => own.reduce((sum, one) => sum + one, 0) / own.length),
      levels,
      thresholds,
      labels,
      curve:
        distinct < 3
          ? null
          : {
              points: uCurve(ratedLevels, ratedEntropies),
              intervals: uCurveIntervals(ratedLevels, ratedEntropies, { seed: request.seed }),
            },
      probe: judged?.figures ?? null,
      probabilities: judged?.probabilities ?? null,
      isTest,
      mostTokens,
      routing: {
        basis: measured ? 'measured' : 'truncated',
        questions: chosen.length,
        policies: comparePolicies(outcomes, routes, request.seed),
      },
      probeFile: judged?.file ?? null,
      warnings,
    };
  } finally {
    rollouts.close();
  }
}

async function featuresOf(
  rollouts: Awaited<ReturnType<typeof openRollouts>>,
  questions: Questions,
  request: DifficultyRequest,
  progress: (value: unknown) => void,
): Promise<FeatureMatrix | undefined> {
  const { hidden, rollouts: dump } = request;
  if (hidden) {
    const { openFeatures } = await import('../../features/open-features.js');
    const matrix = await openFeatures(hidden);
    if (matrix.rows !== questions.ids.length) {
      throw new InputError(
        `${matrix.name}: ${matrix.rows} rows of hidden states for ${questions.ids.length} questions of step ${questions.step}; ` +
          'one row a question is needed, in the order of their first records',
      );
    }
    return matrix;
  }
  const { model } = dump;
  if (model === undefined || rollouts.promptOf === undefined) return undefined;
  // Of the thread alone: models and their tokenizers must not be loaded where the command line is read.
  const { promptFeatures } = await import('./prompt-features.js');
  return promptFeatures(rollouts, questions, { ...dump, model }, (prompts) => progress({ prompts }));
}

export const DIFFICULTY_JOB: ComputeReference<DifficultyRequest, DifficultyResult> = {
  module: import.meta.url,
  job: difficultyJob,
};
