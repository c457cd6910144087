/** All losses of a teacher and student pair, gathered block by block. */
import { InputError } from '../errors.js';
import { createLoss, LOSSES } from '../training/losses/index.js';
import type { Floats, Loss, LossInput } from '../training/types.js';

export interface LossFigures {
  readonly loss: string;
  /** Mean over the rows that count. */
  readonly mean: number;
  /** Standard error over rows; null for losses of a whole batch. */
  readonly standard_error: number | null;
  /** Euclidean norm of the derivative of the mean by all logits. */
  readonly gradient_norm: number;
}

export interface LeftOut {
  readonly loss: string;
  readonly reason: string;
}

/** What a pair offers its losses. */
export interface PairShape {
  readonly classes: number;
  readonly teacher: 'none' | 'dense' | 'top';
  readonly labels: boolean;
  /** All rows come in one block. */
  readonly wholeBatch: boolean;
}

/** Sorting whole rows, pair by pair or in TypeScript, is slow beyond this many classes. */
const MOST_SORTED = 4096;
const SLOW = new Set(['uld', 'logistic-ranking', 'hinge-ranking', 'dkd']);

/** Why a pair cannot have a loss. */
function reasonAgainst({ scope, reads }: Loss, shape: PairShape): string | undefined {
  if (reads.features) return 'it reads features, and a pair of logits has none';
  if (reads.labels && !shape.labels) return 'it needs labels';
  if (reads.teacher !== 'none' && shape.teacher === 'none') return 'it needs a teacher';
  if (reads.teacher === 'dense' && shape.teacher === 'top') return 'it needs the full logits of the teacher';
  if (scope === 'batch' && !shape.wholeBatch) return 'it couples all rows, and these come in blocks';
  return undefined;
}

/** Losses to score: those given, or every one of the registry that the pair allows. */
export function chooseLosses(
  wanted: readonly Loss[] | undefined,
  shape: PairShape,
): { losses: Loss[]; leftOut: LeftOut[] } {
  const leftOut: LeftOut[] = [];
  const losses: Loss[] = [];
  const candidates =
    wanted ?? LOSSES.filter(({ name }) => name !== 'smooth-adversarial').map(({ name }) => createLoss(name));
  for (const loss of candidates) {
    const reason =
      reasonAgainst(loss, shape) ??
      (wanted === undefined && SLOW.has(loss.label) && shape.classes > MOST_SORTED
        ? `it is slow for ${shape.classes} classes; ask for it with --losses`
        : wanted === undefined && loss.label === 'p-listmle' && shape.classes > 120
          ? 'its position weights overflow'
          : undefined);
    if (reason === undefined) losses.push(loss);
    else if (wanted !== undefined) throw new InputError(`loss ${loss.label}: ${reason}`);
    else leftOut.push({ loss: loss.label, reason });
  }
  return { losses, leftOut };
}

export interface LossGatherer {
  /** Losses of the rows of the block, [rows] each, by label. */
  add(input: LossInput): ReadonlyMap<string, Float64Array>;
  finish(): LossFigures[];
}

interface Sums {
  sum: number;
  squares: number;
  rows: number;
  gradientSquares: number;
  byRow: boolean;
}

/** Sums and squares of each loss over rows that come in blocks. */
export function gatherLosses(losses: readonly Loss[]): LossGatherer {
  const sums: Sums[] = losses.map(() => ({ sum: 0, squares: 0, rows: 0, gradientSquares: 0, byRow: true }));
  let gradient: Floats = new Float64Array(0);
  return {
    add(input) {
      const size = input.rows * input.classes;
      const single = input.student instanceof Float32Array;
      if (gradient.length < size || gradient instanceof Float32Array !== single) {
        gradient = single ? new Float32Array(size) : new Float64Array(size);
      }
      const found = new Map<string, Float64Array>();
      losses.forEach((loss, i) => {
        const logits = gradient.subarray(0, size).fill(0);
        const { sum, validRows, perRow } = loss.evaluate(input, { logits });
        const into = sums[i];
        into.sum += sum;
        into.rows += validRows;
        for (const value of logits) into.gradientSquares += value * value;
        if (perRow === undefined) into.byRow = false;
        else {
          for (const value of perRow) into.squares += value * value;
          found.set(loss.label, perRow);
        }
      });
      return found;
    },
    finish: () =>
      losses.map(({ label }, i) => {
        const { sum, squares, rows, gradientSquares, byRow } = sums[i];
        const mean = rows === 0 ? 0 : sum / rows;
        const variance = Math.max(0, squares - rows * mean * mean) / (rows - 1);
        return {
          loss: label,
          mean,
          standard_error: byRow && rows > 1 ? Math.sqrt(variance / rows) : null,
          gradient_norm: rows === 0 ? 0 : Math.sqrt(gradientSquares) / rows,
        };
      }),
  };
}
