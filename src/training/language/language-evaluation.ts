import {
  accumulateRows,
  createRowAccumulator,
  finalizeRows,
  type RowStatistics,
} from '../../kernels/row-statistics.js';
import { bootstrapDocuments } from '../../linalg/bootstrap.js';
import { gatherCalibration } from '../calibration.js';
import { createLoss } from '../losses/index.js';
import { type Floats, IGNORED, type LogitsBlock, type Student, type TeacherRows, type TokenBatch } from '../types.js';
import type { LanguageTeacher } from './live-teacher.js';
import { type TokenWindows, windowBatches } from './token-data.js';

/** A mean over tokens with its standard error and a bootstrap interval over windows; null from a single window. */
export interface TokenMean {
  readonly mean: number;
  readonly standard_error: number | null;
  readonly low: number | null;
  readonly high: number | null;
}

/** How a student predicts a text. */
export interface LanguageEvaluation {
  readonly windows: number;
  readonly tokens: number;
  /** Mean -ln p of the tokens. */
  readonly nll_nats: TokenMean;
  /** exp of it, and of the ends of its interval. */
  readonly perplexity: { readonly value: number; readonly low: number | null; readonly high: number | null };
  /** Share of tokens that the student thinks likeliest. */
  readonly accuracy: TokenMean;
  /** Expected calibration error of the likeliest token's probability, 15 equal bins. */
  readonly calibration_error: number;
  /** Beside the teacher, where there is one. */
  readonly teacher: {
    /** KL(teacher || student); over the stored tokens and one category for the others where the teacher is a list. */
    readonly kl_nats: TokenMean;
    /** Share of tokens at which both think the same token likeliest. */
    readonly top1_agreement: TokenMean;
    /** Mean -ln p of the tokens under the teacher; null where it is a list that need not hold them. */
    readonly nll_nats: TokenMean | null;
  } | null;
}

export interface EvaluationSettings {
  readonly batchSize: number;
  readonly seed: number;
  readonly threads: number;
}

/** Sums of one window. */
const SUMS = ['tokens', 'nll', 'hits', 'kl', 'agreements', 'teacher_nll'] as const;
const WIDTH = SUMS.length;

/**
 * Perplexity, calibration and distance from the teacher over all labels of the windows.
 * @throws InputError for labels and rows that the losses refuse
 */
export async function evaluateLanguage(
  student: Student<TokenBatch>,
  windows: TokenWindows,
  settings: EvaluationSettings,
  teacher?: LanguageTeacher,
): Promise<LanguageEvaluation> {
  const sums = new Float64Array(windows.count * WIDTH);
  const calibration = gatherCalibration();
  const source = windowBatches(windows, settings.batchSize);
  const kl = teacher && createDivergence();
  let dense = false;
  for (let index = 0; index < source.perEpoch; index++) {
    const batch = await source.batch(index);
    const ofTeacher = await teacher?.begin(batch);
    await student.evaluate(batch, async (block) => {
      const labels = batch.labels.subarray(block.firstRow, block.firstRow + block.rows);
      const found = statisticsOf(block.logits, block.rows, block.classes, labels, settings.threads);
      const rows = await ofTeacher?.rows(block.firstRow, block.rows);
      const distances = rows && kl?.(block, labels, rows);
      const other =
        rows?.kind === 'dense'
          ? statisticsOf(rows.logits, block.rows, block.classes, labels, settings.threads)
          : undefined;
      dense ||= other !== undefined;
      for (let r = 0; r < block.rows; r++) {
        if (labels[r] === IGNORED) continue;
        const window = batch.windows[Math.floor((block.firstRow + r) / batch.length)];
        const top = found.topColumns[r];
        const at = window * WIDTH;
        sums[at] += 1;
        sums[at + 1] += found.surprisalNats[r];
        sums[at + 2] += top === labels[r] ? 1 : 0;
        calibration.add(Math.exp(found.topLogProbs[r]), top === labels[r]);
        if (!rows || !distances) continue;
        sums[at + 3] += distances[r];
        sums[at + 4] += top === likeliest(rows, r, other) ? 1 : 0;
        sums[at + 5] += other?.surprisalNats[r] ?? 0;
      }
    });
  }
  return summarise(sums, windows, calibration.finish().error, settings.seed, teacher && (dense ? 'dense' : 'top'));
}

function statisticsOf(
  logits: Floats,
  rows: number,
  columns: number,
  labels: Int32Array,
  threads: number,
): RowStatistics {
  const accumulator = createRowAccumulator(rows, { topK: 1, measures: 'entropy' });
  const targets = labels.map((label) => (label === IGNORED ? -1 : label));
  const dtype = logits instanceof Float32Array ? 'F32' : 'F64';
  accumulateRows(accumulator, { data: logits, dtype, rows, columns }, { targets, threads });
  return finalizeRows(accumulator, columns);
}

/** KL(teacher || student) of every row of a block. */
function createDivergence(): (
  block: LogitsBlock,
  labels: Int32Array,
  teacher: TeacherRows,
) => Float64Array | undefined {
  const divergence = createLoss('kd', { T: 1 });
  return ({ rows, classes, logits }, labels, teacher) =>
    divergence.evaluate({ rows, classes, student: logits, labels, teacher }).perRow;
}

function likeliest(teacher: TeacherRows, row: number, dense: RowStatistics | undefined): number {
  return teacher.kind === 'top' ? teacher.ids[row * teacher.k] : (dense?.topColumns[row] ?? -1);
}

function summarise(
  sums: Float64Array,
  windows: TokenWindows,
  calibrationError: number,
  seed: number,
  teacher: TeacherRows['kind'] | undefined,
): LanguageEvaluation {
  const totals = new Float64Array(WIDTH);
  sums.forEach((value, i) => {
    totals[i % WIDTH] += value;
  });
  const ratio = (k: number) => (of: Float64Array) => of[k] / of[0];
  const { intervals } = bootstrapDocuments(sums, WIDTH, [1, 2, 3, 4, 5].map(ratio), { seed });
  const mean = (k: number): TokenMean => {
    const interval = intervals?.[k - 1];
    return {
      mean: totals[k] / totals[0],
      standard_error: interval?.se ?? null,
      low: interval?.low ?? null,
      high: interval?.high ?? null,
    };
  };
  const nll = mean(1);
  return {
    windows: windows.count,
    tokens: totals[0],
    nll_nats: nll,
    perplexity: {
      value: Math.exp(nll.mean),
      low: nll.low === null ? null : Math.exp(nll.low),
      high: nll.high === null ? null : Math.exp(nll.high),
    },
    accuracy: mean(2),
    calibration_error: calibrationError,
    teacher:
      teacher === undefined
        ? null
        : { kl_nats: mean(3), top1_agreement: mean(4), nll_nats: teacher === 'dense' ? mean(5) : null },
  };
}
