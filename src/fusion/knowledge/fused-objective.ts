import { sparseRows } from '../../kernels/loss-rows.js';
import type { CapturedTeacher } from '../../training/language/captured-teacher.js';
import { createLoss } from '../../training/losses/index.js';
import { asDivergence, countValid, type Objective, type ObjectiveTotals } from '../../training/objective.js';
import { type Floats, IGNORED, type LogitsBlock, type TokenBatch } from '../../training/types.js';
import { createFuser, type FusedRows, type Fuser, type ModelRows, readModelRows } from './fused-rows.js';
import type { FusionLoss } from './fusion-functions.js';

/** What a strategy says of one sequence of a batch. */
export interface SequencePlan {
  /** [models] w_k. */
  readonly weights: Float64Array;
  /** λ of the sequence. */
  readonly lambda: number;
}

/** A strategy's plan of a batch. */
export interface BatchPlan {
  readonly sequences: readonly SequencePlan[];
  /** A term beside the two losses, with its weight: the feedback loss of Fusion-X. */
  readonly feedback?: { readonly weight: number; readonly value: number };
  /**
   * Takes the derivative of the whole loss by every weight, times the rows that count; the feedback's is not among it.
   * @param slopes [sequences][models]
   */
  learn?(slopes: readonly Float64Array[], countedRows: number): void;
}

/** How sequences are weighed: by their windows, at a step. */
export type WeighBatch = (windows: Int32Array, progress: { readonly step: number }) => BatchPlan;

export interface FusedObjectiveRequest {
  /** On the pivot's vocabulary and windows: the pivot's own, then the moved ones. */
  readonly captures: readonly CapturedTeacher[];
  readonly vocabulary: number;
  /** [windows]: positions that hold text. */
  readonly lengths: Int32Array;
  readonly kind: FusionLoss;
  readonly temperature: number;
  /** Rows of L_fusion: all positions of a text (FuseLLM), or those that are learnt (FuseChat). */
  readonly mask: 'attention' | 'labels';
  readonly weigh: WeighBatch;
  /** Whether a strategy asks for slopes. */
  readonly learns: boolean;
  readonly threads: number;
}

/** A stretch of a block's rows in one window. */
interface Stretch {
  /** Place of the window in the batch. */
  readonly sequence: number;
  readonly window: number;
  /** Positions of the window. */
  readonly from: number;
  readonly to: number;
  /** First row in the block. */
  readonly row: number;
}

function stretchesOf({ firstRow, rows }: LogitsBlock, { length, windows }: TokenBatch): Stretch[] {
  const found: Stretch[] = [];
  for (let row = 0; row < rows; ) {
    const sequence = Math.floor((firstRow + row) / length);
    const from = (firstRow + row) % length;
    const to = Math.min(length, from + rows - row);
    found.push({ sequence, window: windows[sequence], from, to, row });
    row += to - from;
  }
  return found;
}

/** Rows of L_fusion as labels: 0 where one counts, IGNORED elsewhere. */
function fusionMask(batch: TokenBatch, lengths: Int32Array, mask: 'attention' | 'labels'): Int32Array {
  const { labels, length, windows } = batch;
  if (mask === 'labels') return labels.map((label) => (label === IGNORED ? IGNORED : 0));
  return labels.map((_, row) => (row % length < lengths[windows[Math.floor(row / length)]] ? 0 : IGNORED));
}

/** Entropies of fused rows in nats, and the logarithms that the kernel reads. */
function logarithms({ rows, width, probabilities }: FusedRows): { logs: Float64Array; entropies: Float64Array } {
  const logs = probabilities.map((p) => Math.log(p));
  const entropies = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    for (let i = r * width; i < (r + 1) * width; i++) {
      if (probabilities[i] > 0) entropies[r] -= probabilities[i] * logs[i];
    }
  }
  return { logs, entropies };
}

/**
 * Adds, for every model, dL_fusion/dw of the rows: Σ_v q_kv (-ln p_v), and for KL also Σ_v q_kv (ln q_v + 1). Models that
 * are not kept have none: their mask is constant.
 */
function addSlopes(
  slopes: Float64Array,
  { models, k, rows }: ModelRows,
  fused: FusedRows,
  student: { readonly logits: Floats; readonly classes: number; readonly normalisers: Float64Array },
  mask: Int32Array,
  kind: FusionLoss,
): void {
  const { logits, classes, normalisers } = student;
  models.forEach(({ ids, probabilities }, m) => {
    const places = fused.places[m];
    if (!places) return;
    for (let r = 0; r < rows; r++) {
      if (mask[r] === IGNORED) continue;
      for (let i = r * k; i < (r + 1) * k && ids[i] >= 0; i++) {
        let cost = normalisers[r] - logits[r * classes + ids[i]];
        if (kind === 'kl') cost += Math.log(fused.probabilities[r * fused.width + places[i]]) + 1;
        slopes[m] += probabilities[i] * cost;
      }
    }
  });
}

/**
 * λ L_CLM + (1 - λ) L_fusion, and the feedback loss of a strategy that has one. L_CLM is the mean over the labels of a
 * micro-batch, L_fusion the mean over its mask. Targets are read and fused row by row, and never exist as [batch, length,
 * vocabulary].
 */
export function fusedObjective(request: FusedObjectiveRequest): Objective<TokenBatch> {
  const { captures, lengths, kind, temperature, threads, learns } = request;
  const clm = createLoss('ce');
  const fuse: Fuser = createFuser(request.vocabulary);
  return {
    // The feedback loss is no mean over rows and has no unit: what observes the plan hears of it.
    terms: ['ce', 'fusion'],
    wholeBatch: false,
    validRows: ({ labels }) => countValid(labels),
    begin(batch, progress) {
      const plan = request.weigh(batch.windows, progress);
      const { sequences, feedback } = plan;
      const mask = fusionMask(batch, lengths, request.mask);
      const countedRows = countValid(batch.labels);
      const fusionRows = countValid(mask);
      // The trainer divides by the labels; the mean of L_fusion is that over its own rows.
      const share = fusionRows === 0 ? 0 : countedRows / fusionRows;
      const slopes = sequences.map(({ weights }) => new Float64Array(weights.length));
      const sums = { total: 0, ce: 0, fusion: 0 };

      const visitStretch = (block: LogitsBlock, { sequence, window, from, to, row }: Stretch): void => {
        const { classes } = block;
        const rows = to - from;
        const first = block.firstRow + row;
        const { weights, lambda } = sequences[sequence];
        const student = block.logits.subarray(row * classes, (row + rows) * classes);
        const gradient = block.gradient?.subarray(row * classes, (row + rows) * classes);
        const labels = batch.labels.subarray(first, first + rows);
        const found = clm.evaluate(
          { rows, classes, student, labels, firstRow: first },
          gradient && lambda !== 0 ? { logits: gradient, scale: lambda } : undefined,
        );
        sums.ce += found.sum;
        sums.total += lambda * found.sum;
        const ofRows = mask.subarray(first, first + rows);
        if (share === 0 || !ofRows.includes(0)) return;
        const weight = (1 - lambda) * share;
        const models = readModelRows(captures, window, [from, to], temperature);
        const fused = fuse(models, weights);
        const { logs, entropies } = logarithms(fused);
        const losses = new Float64Array(rows);
        sparseRows(
          {
            ...{
              rows,
              classes,
              student,
              k: fused.width,
              ids: fused.ids,
              logProbs: logs,
              leftover: new Float64Array(rows),
            },
            ...{ temperature: 1, rule: 'zero', labels: ofRows, losses, scale: weight },
            ...(gradient && weight !== 0 && { gradient }),
          },
          threads,
        );
        let sum = 0;
        for (let r = 0; r < rows; r++) {
          if (ofRows[r] === IGNORED) continue;
          sum += losses[r] + (kind === 'ce' ? entropies[r] : 0);
        }
        sums.fusion += share * sum;
        sums.total += weight * sum;
        if (!learns || !gradient) return;
        const normalisers = losses.map((loss, r) => loss + entropies[r] + fusedLogit(fused, student, classes, r));
        const own = new Float64Array(weights.length);
        addSlopes(own, models, fused, { logits: student, classes, normalisers }, ofRows, kind);
        for (let m = 0; m < own.length; m++) slopes[sequence][m] += weight * own[m];
      };

      return {
        visit(block) {
          try {
            for (const stretch of stretchesOf(block, batch)) visitStretch(block, stretch);
          } catch (error) {
            throw asDivergence(error, block);
          }
          const last = block.firstRow + block.rows === batch.labels.length;
          if (last && block.gradient) plan.learn?.(slopes, countedRows);
        },
        totals(): ObjectiveTotals {
          const ofFeedback = (feedback?.value ?? 0) * countedRows;
          return {
            sum: sums.total + (feedback?.weight ?? 0) * ofFeedback,
            validRows: countedRows,
            terms: { ce: sums.ce, fusion: sums.fusion },
            diagnostics: {},
          };
        },
      };
    },
  };
}

/** Σ_v q_v s_v of a row. */
function fusedLogit({ ids, probabilities, width }: FusedRows, logits: Floats, classes: number, row: number): number {
  let sum = 0;
  for (let i = row * width; i < (row + 1) * width && ids[i] >= 0; i++) {
    sum += probabilities[i] * logits[row * classes + ids[i]];
  }
  return sum;
}
