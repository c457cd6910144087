import { shareAbove } from './spectral-entropy.js';

/** One cell of the sweep. */
export interface SweepCell {
  readonly t: number;
  readonly bits: number;
  /** Share of the powered eigenvalues above 0.01; NaN where not all eigenvalues are known. */
  readonly shareAbove: number;
}

/** One bandwidth of the sweep. */
export interface SweepRow {
  /** As the user names it: `median`, `x0.5`, `10`. */
  readonly name: string;
  readonly sigma: number;
  readonly meanSimilarity: number;
  readonly cells: readonly SweepCell[];
}

/** The authors' rule of thumb: about 1 % of the eigenvalues remain above 0.01 after powering. */
export const RULE_THRESHOLD = 0.01;
export const RULE_SHARE = 0.01;
/** What "about" is taken to mean. */
export const RULE_LOW = 0.005;
export const RULE_HIGH = 0.02;

export function followsRule(share: number): boolean {
  return share >= RULE_LOW && share <= RULE_HIGH;
}

/** Cells of one bandwidth. @param eigenvalues all of them; null where they are not known, and neither is the share */
export function sweepCells(
  eigenvalues: Float64Array | null,
  times: readonly number[],
  bits: Float64Array,
): SweepCell[] {
  return times.map((t, k) => ({
    t,
    bits: bits[k],
    shareAbove: eigenvalues === null ? Number.NaN : shareAbove(eigenvalues, t, RULE_THRESHOLD),
  }));
}

/** The cell whose share is nearest to 1 % on a logarithmic scale; undefined when every share is 0 or unknown. */
export function nearestToRule(rows: readonly SweepRow[]): { row: SweepRow; cell: SweepCell } | undefined {
  let best: { row: SweepRow; cell: SweepCell } | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const row of rows) {
    for (const cell of row.cells) {
      const distance = Math.abs(Math.log(cell.shareAbove / RULE_SHARE));
      if (distance < least) {
        least = distance;
        best = { row, cell };
      }
    }
  }
  return best;
}
