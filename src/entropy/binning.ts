import { standardErrorOfMean } from './aggregate.js';
import { addExact, type ExactSum, mergeExact, totalOf } from './exact-sum.js';

/** Context lengths below this have a bin each; above, every doubling has `BINS_PER_DOUBLING`. */
const SINGLE_BINS = 32;
const BINS_PER_DOUBLING = 8;

/** Bin of a context length or position (0, 1, 2, ...): one each up to 31, then eight a doubling. */
export function positionBin(position: number): number {
  if (position < SINGLE_BINS) return position;
  const doubling = Math.floor(Math.log2(position / SINGLE_BINS));
  const width = (SINGLE_BINS * 2 ** doubling) / BINS_PER_DOUBLING;
  return SINGLE_BINS + doubling * BINS_PER_DOUBLING + Math.floor((position - SINGLE_BINS * 2 ** doubling) / width);
}

/** First and last position of a bin, both inclusive. */
export function positionBinRange(bin: number): { first: number; last: number } {
  if (bin < SINGLE_BINS) return { first: bin, last: bin };
  const doubling = Math.floor((bin - SINGLE_BINS) / BINS_PER_DOUBLING);
  const width = (SINGLE_BINS * 2 ** doubling) / BINS_PER_DOUBLING;
  const first = SINGLE_BINS * 2 ** doubling + ((bin - SINGLE_BINS) % BINS_PER_DOUBLING) * width;
  return { first, last: first + width - 1 };
}

/** A count and the exact sums of some quantities over what fell into one bin. */
export interface BinSums {
  count: number;
  readonly sums: ExactSum[];
}

/** Bins by number, created as they are met. */
export type BinTable = Map<number, BinSums>;

/** The bin `index`, created with `width` empty sums when it is new. */
export function binAt(table: BinTable, index: number, width: number): BinSums {
  let bin = table.get(index);
  if (bin === undefined) {
    bin = { count: 0, sums: Array.from({ length: width }, (): ExactSum => []) };
    table.set(index, bin);
  }
  return bin;
}

/** Width of a bin that holds the sums of two quantities and then of their squares. */
export const PAIR_WIDTH = 4;

/** Adds two quantities and their squares to a bin of `PAIR_WIDTH`. */
export function addToBin(bin: BinSums, first: number, second: number): void {
  bin.count++;
  addExact(bin.sums[0], first);
  addExact(bin.sums[1], second);
  addExact(bin.sums[2], first * first);
  addExact(bin.sums[3], second * second);
}

export function mergeBins(table: BinTable, other: BinTable): void {
  for (const [index, part] of other) {
    const bin = binAt(table, index, part.sums.length);
    bin.count += part.count;
    for (let i = 0; i < part.sums.length; i++) mergeExact(bin.sums[i], part.sums[i]);
  }
}

/** Bins in ascending order. */
export function sortedBins(table: BinTable): [number, BinSums][] {
  return [...table].sort((a, b) => a[0] - b[0]);
}

export type BinTableJson = [number, number, number[][]][];

export function binsToJson(table: BinTable): BinTableJson {
  return sortedBins(table).map(([index, bin]) => [index, bin.count, bin.sums.map((sum) => [...sum])]);
}

export function binsFromJson(json: BinTableJson): BinTable {
  return new Map(json.map(([index, count, sums]) => [index, { count, sums: sums.map((sum) => [...sum]) }]));
}

/** Mean of quantity `which` in a bin. */
export function binMean(bin: BinSums, which: number): number {
  return totalOf(bin.sums[which]) / bin.count;
}

/** Bin of a quantity that is never below zero but for rounding, in bins of equal width. */
export function uniformBin(value: number, width: number): number {
  return Math.max(0, Math.floor(value / width));
}

/** Standard error of that mean, in a bin of `PAIR_WIDTH`; NaN for a single entry. */
export function binError(bin: BinSums, which: 0 | 1): number {
  return standardErrorOfMean(totalOf(bin.sums[which]), totalOf(bin.sums[which + 2]), bin.count);
}

/** Counts by bin number, for histograms. */
export type CountTable = Map<number, number>;

export function countInto(table: CountTable, index: number): void {
  table.set(index, (table.get(index) ?? 0) + 1);
}

export function mergeCounts(table: CountTable, other: CountTable): void {
  for (const [index, count] of other) table.set(index, (table.get(index) ?? 0) + count);
}

export function countsToJson(table: CountTable): [number, number][] {
  return [...table].sort((a, b) => a[0] - b[0]);
}
