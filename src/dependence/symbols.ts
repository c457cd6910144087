/** A discrete variable over rows: `codes[i]` in 0..size-1, every code taken at least once. */
export interface Symbols {
  readonly codes: Int32Array;
  readonly size: number;
}

/** Dense codes of whole numbers or other values, numbered in ascending order, so that the order of rows is no matter. */
export function symbolsOf(values: ArrayLike<number>): Symbols & { readonly levels: Float64Array } {
  const sorted = Float64Array.from(values).sort();
  let size = 0;
  for (let i = 0; i < sorted.length; i++) {
    // 0 and -0 are one symbol.
    if (i === 0 || sorted[i] !== sorted[size - 1]) sorted[size++] = sorted[i];
  }
  const levels = sorted.slice(0, size);
  const codes = new Int32Array(values.length);
  for (let i = 0; i < codes.length; i++) codes[i] = position(levels, values[i]);
  return { codes, size, levels };
}

/** Index of a value that is there. */
function position(levels: Float64Array, value: number): number {
  let low = 0;
  let high = levels.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (levels[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Renumbers codes below `bound` so that those taken are 0..size-1, in the same order. */
export function compactCodes(codes: ArrayLike<number>, bound: number): Symbols {
  const number = new Int32Array(bound);
  for (let i = 0; i < codes.length; i++) number[codes[i]] = 1;
  let size = 0;
  for (let c = 0; c < bound; c++) {
    const taken = number[c];
    number[c] = size;
    size += taken;
  }
  const dense = new Int32Array(codes.length);
  for (let i = 0; i < dense.length; i++) dense[i] = number[codes[i]];
  return { codes: dense, size };
}

/** Pairs beyond this many times the rows are found by sorting instead of in a table. */
const TABLE_FACTOR = 4;
const LEAST_TABLE = 1 << 20;

function joinTwo(a: Symbols, b: Symbols): Symbols {
  const rows = a.codes.length;
  const bound = a.size * b.size;
  const keys = new Float64Array(rows);
  for (let i = 0; i < rows; i++) keys[i] = a.codes[i] * b.size + b.codes[i];
  // Sizes are at most the number of rows, so keys stay exact up to 94 million rows; above, tables of pairs have few cells.
  if (bound > Number.MAX_SAFE_INTEGER)
    throw new RangeError(`${a.size} x ${b.size} pairs of symbols cannot be numbered`);
  return bound <= Math.max(LEAST_TABLE, TABLE_FACTOR * rows) ? compactCodes(keys, bound) : symbolsOf(keys);
}

/** The joint variable of several, numbered in the order of (first, second, ...). Without any: one symbol for all rows. */
export function joinSymbols(variables: readonly Symbols[], rows = variables[0]?.codes.length ?? 0): Symbols {
  if (variables.length === 0) return { codes: new Int32Array(rows), size: 1 };
  return variables.reduce(joinTwo);
}

/** How often each symbol occurs, [size]. */
export function countSymbols(symbols: Symbols): Float64Array {
  const counts = new Float64Array(symbols.size);
  for (let i = 0; i < symbols.codes.length; i++) counts[symbols.codes[i]]++;
  return counts;
}
