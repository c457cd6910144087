/** What is done to the model in one column of a sweep. */
export type SweepKind = 'none' | 'vector' | 'shuffled' | 'random' | 'temperature';

/** One setting of a sweep; every prompt is evaluated in every cell. */
export interface SweepCell {
  readonly kind: SweepKind;
  /** Steered block, null without a vector. */
  readonly layer: number | null;
  /** Which of several controls of one kind, from 0. */
  readonly control: number | null;
  /** Multiplier of the vector as stored. */
  readonly strength: number;
  /** Sampling temperature, at which actions are chosen. */
  readonly temperature: number;
}

export interface SweepGrid {
  readonly layers: readonly number[];
  /** Multipliers of each layer's vector, ascending; zero is the cell `none`. */
  readonly strengths: ReadonlyMap<number, readonly number[]>;
  /** Shuffled copies of each vector. */
  readonly shuffled: number;
  /** Random vectors of each vector's norm. */
  readonly random: number;
  readonly temperatures: readonly number[];
}

/** The unsteered model at temperature 1. */
export const UNSTEERED: SweepCell = { kind: 'none', layer: null, control: null, strength: 0, temperature: 1 };

/**
 * Cells in the order of the table: the unsteered model, temperatures, then layer by layer the vector and its controls,
 * each over all strengths but zero.
 */
export function sweepCells(grid: SweepGrid): SweepCell[] {
  const cells: SweepCell[] = [UNSTEERED];
  for (const temperature of grid.temperatures) {
    if (temperature !== 1) cells.push({ ...UNSTEERED, kind: 'temperature', temperature });
  }
  for (const layer of grid.layers) {
    const strengths = (grid.strengths.get(layer) ?? []).filter((strength) => strength !== 0);
    const kinds: readonly [SweepKind, number][] = [
      ['vector', 1],
      ['shuffled', grid.shuffled],
      ['random', grid.random],
    ];
    for (const [kind, copies] of kinds) {
      for (let copy = 0; copy < copies; copy++) {
        const control = kind === 'vector' ? null : copy;
        for (const strength of strengths) cells.push({ kind, layer, control, strength, temperature: 1 });
      }
    }
  }
  return cells;
}
