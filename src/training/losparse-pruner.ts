import { InputError } from '../errors.js';
import { type PruningSchedule, remainingShare } from './pruning-schedule.js';
import type { Floats } from './types.js';

/** A sparse part S that is pruned while it is trained. */
export interface PrunedMatrix {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** [rows, columns], changed in place. */
  readonly values: Floats;
}

export interface PrunerOptions extends PruningSchedule {
  /** Smoothing of the importance, b1; default 0.85. */
  readonly beta1?: number;
  /** Smoothing of its uncertainty, b2; 1 (default) leaves the uncertainty out. */
  readonly beta2?: number;
  /** Entries that live and die together: rows are output neurons. Default `row`. */
  readonly structure?: 'row' | 'column' | 'entry';
  /** How the entries of a row or column make one score; default `mean`. */
  readonly reduction?: 'mean' | 'sum' | 'max' | 'min';
}

export interface PruningStep {
  /** Share of the entries that may remain. */
  readonly share: number;
  /** Scores below it were zeroed; absent where nothing was masked. */
  readonly threshold?: number;
}

/** What is known of the entries of one matrix, each like its values. */
export interface Sensitivity {
  readonly importance: Floats;
  readonly average: Floats;
  /** With beta2 < 1. */
  readonly uncertainty?: Floats;
}

export interface LoSparsePruner {
  /** Of each matrix. */
  readonly sensitivities: readonly Sensitivity[];
  /**
   * After step t = 0, 1, 2, ... of the optimiser: takes dLoss/dS of every matrix, in the order of the matrices, and zeroes what
   * falls below the threshold. Masked entries may grow again.
   * @param at t, default one more than before; and a factor of the gradients, default 1
   * @throws RangeError when the gradients do not fit
   */
  step(gradients: readonly Floats[], at?: { readonly step?: number; readonly scale?: number }): PruningStep;
}

/** Buffers of the pruner's own. */
function ownSensitivity({ values }: PrunedMatrix, beta2: number): Sensitivity {
  const make = (): Floats =>
    values instanceof Float32Array ? new Float32Array(values.length) : new Float64Array(values.length);
  return { importance: make(), average: make(), ...(beta2 < 1 && { uncertainty: make() }) };
}

interface Group {
  readonly score: number;
  readonly entries: number;
}

const REDUCTIONS: Readonly<
  Record<NonNullable<PrunerOptions['reduction']>, (sum: number, least: number, most: number, count: number) => number>
> = {
  mean: (sum, _least, _most, count) => sum / count,
  sum: (sum) => sum,
  max: (_sum, _least, most) => most,
  min: (_sum, least) => least,
};

/** Scores of the rows, the columns or the single entries of a matrix. */
function groupScores(
  { rows, columns }: PrunedMatrix,
  scoreOf: (at: number) => number,
  structure: NonNullable<PrunerOptions['structure']>,
  reduction: NonNullable<PrunerOptions['reduction']>,
): Float64Array {
  if (structure === 'entry') return Float64Array.from({ length: rows * columns }, (_, at) => scoreOf(at));
  const byRow = structure === 'row';
  const [groups, members] = byRow ? [rows, columns] : [columns, rows];
  const reduce = REDUCTIONS[reduction];
  return Float64Array.from({ length: groups }, (_, group) => {
    let [sum, least, most] = [0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (let i = 0; i < members; i++) {
      const score = scoreOf(byRow ? group * columns + i : i * columns + group);
      sum += score;
      least = Math.min(least, score);
      most = Math.max(most, score);
    }
    return reduce(sum, least, most, members);
  });
}

/** The score of the k-th smallest entry, k from 1, of groups whose entries share a score. */
function kthSmallest(groups: readonly Group[], k: number): number {
  const sorted = [...groups].sort((a, b) => a.score - b.score);
  let seen = 0;
  for (const { score, entries } of sorted) {
    seen += entries;
    if (seen >= k) return score;
  }
  return sorted[sorted.length - 1].score;
}

const groupOf = (structure: NonNullable<PrunerOptions['structure']>, at: number, columns: number): number => {
  if (structure === 'entry') return at;
  return structure === 'row' ? Math.floor(at / columns) : at % columns;
};

/**
 * Pruning of the sparse parts in training (LoSparse 2023, with the sensitivity of PLATON 2022). Importance I = |S dLoss/dS|; its
 * moving average takes the importance of the step BEFORE, as released; with 0 < beta2 < 1 the score is the average times
 * the moving average of |I - average|. The cut is the floor(n (1 - share))-th smallest score over all entries of all matrices,
 * rounded to single precision, and what lies strictly below it becomes zero; where that is the 0-th, nothing does.
 * @param buffers of each matrix, zero at first, where the caller keeps them; with what a stopped run had in them, it goes on
 * @throws InputError when the schedule has too few steps or beta2 is not within (0, 1]
 */
export function createLoSparsePruner(
  matrices: readonly PrunedMatrix[],
  options: PrunerOptions,
  buffers?: readonly Sensitivity[],
): LoSparsePruner {
  const { beta1 = 0.85, beta2 = 1, structure = 'row', reduction = 'mean', interval = 1 } = options;
  if (!(beta2 > 0 && beta2 <= 1))
    throw new InputError(`beta2 is ${beta2}: it lies within (0, 1], and 1 switches it off`);
  remainingShare(options, 0);
  const sensitivities = buffers ?? matrices.map((matrix) => ownSensitivity(matrix, beta2));
  let next = 0;

  const observe = (matrix: PrunedMatrix, gradient: Floats, state: Sensitivity, step: number, scale: number): void => {
    const { values } = matrix;
    const { importance, average, uncertainty } = state;
    // Gradients between two masks are averaged.
    const within = step % interval;
    for (let at = 0; at < values.length; at++) {
      const current = Math.abs(values[at] * gradient[at] * scale);
      if (within > 0) {
        importance[at] = (importance[at] * within + current) / (within + 1);
        continue;
      }
      average[at] = beta1 * average[at] + (1 - beta1) * importance[at];
      if (uncertainty !== undefined) {
        uncertainty[at] = beta2 * uncertainty[at] + (1 - beta2) * Math.abs(importance[at] - average[at]);
      }
      importance[at] = current;
    }
  };

  const mask = (share: number): number | undefined => {
    const scores = matrices.map((matrix, m) => {
      const { average, uncertainty } = sensitivities[m];
      const scoreOf = (at: number): number => average[at] * (uncertainty?.[at] ?? 1);
      const found = groupScores(matrix, scoreOf, structure, reduction);
      return matrix.values instanceof Float32Array ? Float32Array.from(found) : found;
    });
    const entries = matrices.reduce((sum, { values }) => sum + values.length, 0);
    const k = Math.floor(entries * (1 - share));
    if (k === 0) return undefined;
    const groups = scores.flatMap((list, m) => {
      const size = matrices[m].values.length / list.length;
      return Array.from(list, (score) => ({ score, entries: size }));
    });
    // The released cut is a single: of scores in double the k-th itself may lie below it.
    const threshold = Math.fround(kthSmallest(groups, k));
    matrices.forEach(({ values, columns }, m) => {
      for (let at = 0; at < values.length; at++) {
        if (scores[m][groupOf(structure, at, columns)] < threshold) values[at] = 0;
      }
    });
    return threshold;
  };

  return {
    sensitivities,
    step(gradients, { step = next, scale = 1 } = {}) {
      if (gradients.length !== matrices.length || gradients.some((g, m) => g.length !== matrices[m].values.length)) {
        throw new RangeError('gradients do not fit the matrices');
      }
      matrices.forEach((matrix, m) => {
        observe(matrix, gradients[m], sensitivities[m], step, scale);
      });
      const { share, masked } = remainingShare(options, step);
      next = step + 1;
      const threshold = masked ? mask(share) : undefined;
      return { share, ...(threshold !== undefined && { threshold }) };
    },
  };
}

/** Rows (or columns) of a matrix that hold any entry but zero, ascending: what is stored of S. */
export function survivors(
  { values, rows, columns }: Pick<PrunedMatrix, 'values' | 'rows' | 'columns'>,
  structure: 'row' | 'column' = 'row',
): Int32Array {
  const alive = new Uint8Array(structure === 'row' ? rows : columns);
  for (let at = 0; at < values.length; at++) if (values[at] !== 0) alive[groupOf(structure, at, columns)] = 1;
  return Int32Array.from([...alive.keys()].filter((group) => alive[group] === 1));
}
