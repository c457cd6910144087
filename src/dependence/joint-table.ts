import { compactCodes, countSymbols, joinSymbols, type Symbols } from './symbols.js';

/** A table of counts over several discrete variables; only cells that were seen are held. */
export interface JointTable {
  /** [cells] */
  readonly counts: Float64Array;
  /** The symbol of each variable in each cell, [cells] a variable. */
  readonly cells: readonly Int32Array[];
  /** Number of symbols that were seen, for each variable. */
  readonly sizes: readonly number[];
  readonly total: number;
}

/** Counts rows by cell. */
export function jointTable(variables: readonly Symbols[]): JointTable {
  const joint = joinSymbols(variables);
  const counts = countSymbols(joint);
  const cells = variables.map(({ codes }) => {
    const ofCell = new Int32Array(joint.size);
    for (let i = 0; i < codes.length; i++) ofCell[joint.codes[i]] = codes[i];
    return ofCell;
  });
  return { counts, cells, sizes: variables.map(({ size }) => size), total: joint.codes.length };
}

/** A table from cells that were counted elsewhere; cells with equal symbols are added. */
export function tableOfCells(variables: readonly Symbols[], counts: ArrayLike<number>): JointTable {
  // Symbols that occur in cells of count 0 alone were not seen.
  const kept: number[] = [];
  for (let i = 0; i < counts.length; i++) if (counts[i] > 0) kept.push(i);
  const seen = variables.map(({ codes, size }) =>
    compactCodes(
      Int32Array.from(kept, (i) => codes[i]),
      size,
    ),
  );
  const table = jointTable(seen);
  const joint = joinSymbols(seen);
  const sums = new Float64Array(joint.size);
  let total = 0;
  kept.forEach((row, i) => {
    sums[joint.codes[i]] += counts[row];
    total += counts[row];
  });
  return { ...table, counts: sums, total };
}

/** Which marginal cell each joint cell belongs to, when only the variables `subset` are kept. */
export function marginalIndex(table: JointTable, subset: readonly number[]): Symbols {
  const symbols = subset.map((v) => ({ codes: table.cells[v], size: table.sizes[v] }));
  return joinSymbols(symbols, table.counts.length);
}

/** Counts of a marginal table. */
export function marginalCounts(counts: Float64Array, index: Symbols): Float64Array {
  const sums = new Float64Array(index.size);
  for (let i = 0; i < counts.length; i++) sums[index.codes[i]] += counts[i];
  return sums;
}
