import type { CapturedTeacher } from '../../training/language/captured-teacher.js';

/** What models say of the same positions, the pivot first. A row that a source left empty is the pivot's. */
export interface ModelRows {
  readonly rows: number;
  /** Entries of a row at most. */
  readonly k: number;
  readonly models: readonly ModelEntries[];
}

/** Distributions of one model by their entries. */
export interface ModelEntries {
  /** [rows, k]; -1 from the end of a row that holds fewer. */
  readonly ids: Int32Array;
  /** [rows, k]; each row sums to 1. */
  readonly probabilities: Float64Array;
}

/**
 * Reads rows from..to-1 of a window of the pivot's tokens: the softmax of the kept log-probabilities over T, which is that
 * of the kept logits over T.
 * @param captures on the pivot's vocabulary and windows: the pivot's own, then the moved ones of its sources
 */
export function readModelRows(
  captures: readonly CapturedTeacher[],
  window: number,
  [from, to]: readonly [number, number],
  temperature: number,
): ModelRows {
  const rows = to - from;
  const k = captures.reduce((most, { header }) => Math.max(most, header.k), 0);
  const models: ModelEntries[] = [];
  for (const capture of captures) {
    const stored = capture.rows(window, from, to);
    const ids = new Int32Array(rows * k).fill(-1);
    const probabilities = new Float64Array(rows * k);
    for (let r = 0; r < rows; r++) {
      const first = stored.k * r;
      let count = 0;
      while (count < stored.k && stored.ids[first + count] >= 0) count++;
      if (count === 0) {
        const pivot = models.at(0);
        if (!pivot) continue;
        ids.set(pivot.ids.subarray(r * k, (r + 1) * k), r * k);
        probabilities.set(pivot.probabilities.subarray(r * k, (r + 1) * k), r * k);
        continue;
      }
      let sum = 0;
      for (let i = 0; i < count; i++) {
        const power = Math.exp((stored.logProbs[first + i] - stored.logProbs[first]) / temperature);
        ids[r * k + i] = stored.ids[first + i];
        probabilities[r * k + i] = power;
        sum += power;
      }
      for (let i = 0; i < count; i++) probabilities[r * k + i] /= sum;
    }
    models.push({ ids, probabilities });
  }
  return { rows, k, models };
}

/** Fused targets: Σ_k w_k q_k on the union of the entries. */
export interface FusedRows {
  readonly rows: number;
  /** Entries of a row at most. */
  readonly width: number;
  /** [rows, width]; -1 from the end of a row that holds fewer. */
  readonly ids: Int32Array;
  /** [rows, width]. */
  readonly probabilities: Float64Array;
  /** Of each model with a weight, [rows, k]: place of each of its entries in the fused row. */
  readonly places: readonly (Int32Array | undefined)[];
}

/** Fuses rows, sparse throughout. */
export type Fuser = (models: ModelRows, weights: ArrayLike<number>) => FusedRows;

/** @param vocabulary of the pivot: one number a token is held */
export function createFuser(vocabulary: number): Fuser {
  // Row in which a token was seen last, counted over all calls, and its place there.
  const seen = new Float64Array(vocabulary);
  const placeOf = new Int32Array(vocabulary);
  let row = 0;
  return ({ rows, k, models }, weights) => {
    const kept = models.reduce((count, _, m) => count + (weights[m] > 0 ? 1 : 0), 0);
    const width = kept * k;
    const ids = new Int32Array(rows * width).fill(-1);
    const probabilities = new Float64Array(rows * width);
    const places = models.map((_, m) => (weights[m] > 0 ? new Int32Array(rows * k) : undefined));
    for (let r = 0; r < rows; r++) {
      row++;
      let count = 0;
      models.forEach((model, m) => {
        const own = places[m];
        if (!own) return;
        for (let i = r * k; i < (r + 1) * k && model.ids[i] >= 0; i++) {
          const id = model.ids[i];
          if (seen[id] !== row) {
            seen[id] = row;
            placeOf[id] = count;
            ids[r * width + count++] = id;
          }
          own[i] = placeOf[id];
          probabilities[r * width + placeOf[id]] += weights[m] * model.probabilities[i];
        }
      });
    }
    return { rows, width, ids, probabilities, places };
  };
}
