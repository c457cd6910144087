import { didYouMean, InputError } from '../../errors.js';
import { createRandom } from '../../random.js';

/** What a row is for: rows of `predict` have no outcome. */
export const SPLITS = ['predict', 'train', 'calibration', 'test'] as const;
export type Split = (typeof SPLITS)[number];

const NAMES: Readonly<Record<string, Split>> = {
  train: 'train',
  fit: 'train',
  calibration: 'calibration',
  calib: 'calibration',
  cal: 'calibration',
  test: 'test',
  predict: 'predict',
  '': 'predict',
};

/** Code of the split that a cell of a split column names. @throws InputError with the row's place */
export function splitCode(cell: unknown, where: string): number {
  const name = String(cell ?? '')
    .trim()
    .toLowerCase();
  const split = NAMES[name];
  if (split === undefined) {
    const known = ['train', 'calibration', 'test', 'predict'];
    throw new InputError(`${where}: split "${name}"${didYouMean(name, known)}; known: ${known.join(', ')}`);
  }
  return SPLITS.indexOf(split);
}

export interface SplitSettings {
  /** Shares of training, calibration and test rows; together 1. */
  readonly shares: readonly [number, number, number];
  /** `order`: the first rows are for training, the last for the test (series); `random`: a seeded permutation. */
  readonly by: 'random' | 'order';
  readonly seed: number;
}

/** Codes of all rows; rows without outcome are `predict`. */
export function drawSplits(outcomes: Float64Array, { shares, by, seed }: SplitSettings): Uint8Array {
  const known: number[] = [];
  for (let i = 0; i < outcomes.length; i++) if (!Number.isNaN(outcomes[i])) known.push(i);
  const order = by === 'random' ? createRandom(seed).fork(7).permutation(known.length) : known.map((_, i) => i);
  const train = Math.round(shares[0] * known.length);
  const calibration = Math.round((shares[0] + shares[1]) * known.length);
  const codes = new Uint8Array(outcomes.length);
  for (let at = 0; at < known.length; at++) {
    const split: Split = at < train ? 'train' : at < calibration ? 'calibration' : 'test';
    codes[known[order[at]]] = SPLITS.indexOf(split);
  }
  return codes;
}

/** Rows of one split, ascending. */
export function rowsOfSplit(codes: Uint8Array, split: Split): Int32Array {
  const code = SPLITS.indexOf(split);
  const rows: number[] = [];
  for (let i = 0; i < codes.length; i++) if (codes[i] === code) rows.push(i);
  return Int32Array.from(rows);
}
