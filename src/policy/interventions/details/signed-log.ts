import type { Histogram } from '../../../report/plots/histogram.js';

/** Bins on each side of 0. */
const SIDE_BINS = 40;

/** An axis that is linear around 0 and logarithmic far from it on both sides: sign(v) log10(1 + |v| / unit). */
export interface SignedLogAxis {
  readonly unit: number;
  /** [bins + 1], positions on the axis. */
  readonly edges: Float64Array;
  place(value: number): number;
}

/** An axis for values in [-most, most]. */
export function signedLogAxis(most: number, unit: number): SignedLogAxis {
  const place = (value: number): number => Math.sign(value) * Math.log10(1 + Math.abs(value) / unit);
  const end = Math.max(place(most), 1e-3);
  const edges = Float64Array.from({ length: 2 * SIDE_BINS + 1 }, (_, i) => (end * (i - SIDE_BINS)) / SIDE_BINS);
  return { unit, edges, place };
}

/** Counts of values on such an axis. */
export function signedLogCounts({ edges, place }: SignedLogAxis): { add(value: number): void; histogram: Histogram } {
  const counts = new Float64Array(edges.length - 1);
  const end = edges[edges.length - 1];
  return {
    add(value) {
      const bin = Math.floor((place(value) / end + 1) * SIDE_BINS);
      counts[Math.min(counts.length - 1, Math.max(0, bin))]++;
    },
    histogram: { edges, counts },
  };
}

/** Label of the axis of a quantity. */
export function signedLogLabel(quantity: string, { unit }: SignedLogAxis): string {
  return `sign(${quantity}) log10(1 + |${quantity}| / ${unit})`;
}
