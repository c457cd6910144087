import { REFERENCE_FLOOR, truncatedSpectrum } from './truncated-vendi.js';
import { kernelSpectrum, type SpectrumOptions, vendiScore, withUnitTrace } from './vendi-score.js';

/** A figure that depends on the spectrum alone. `rke` is the order-2 score, computed from the norm where there is one. */
export interface SpectralMeasure {
  readonly kind: 'vendi' | 'truncated_vendi' | 'rke';
  readonly q: number;
  /** Eigenvalues that are kept; null where it is not truncated. */
  readonly t: number | null;
}

/** Every order, every order of every truncation, and RKE. */
export function spectralMeasures(orders: readonly number[], truncations: readonly number[]): SpectralMeasure[] {
  return [
    ...orders.map((q): SpectralMeasure => ({ kind: 'vendi', q, t: null })),
    { kind: 'rke', q: 2, t: null },
    ...truncations.flatMap((t) => orders.map((q): SpectralMeasure => ({ kind: 'truncated_vendi', q, t }))),
  ];
}

/** How eigenvalues become scores: what happens to negative ones, where noise is cut, and the truncation's floor. */
export interface ScoreOptions extends SpectrumOptions {
  /** Raise eigenvalues to 1e-10 before truncation, as the reference does. */
  readonly referenceFloor?: boolean;
}

/**
 * All measures of one spectrum.
 * @param eigenvalues of K/n, in any order
 * @param items number of items that they belong to
 */
export function scoresOf(
  eigenvalues: Float64Array,
  items: number,
  measures: readonly SpectralMeasure[],
  options: ScoreOptions,
): Float64Array {
  const { eigenvalues: kept } = withUnitTrace(kernelSpectrum(eigenvalues, options));
  const floor = options.referenceFloor ? REFERENCE_FLOOR : 0;
  return Float64Array.from(measures, ({ q, t }) =>
    vendiScore(t === null ? kept : truncatedSpectrum(kept, t, items, floor), q),
  );
}
