import { chiSquareSurvival, logGamma } from '../linalg/special-functions.js';
import type { Random } from '../random.js';
import { drawHypergeometric } from './draws.js';

/** Asymptotic test of independence: G = 2 N I0 against χ². */
export interface AsymptoticTest {
  readonly statistic: number;
  readonly degreesOfFreedom: number;
  readonly pValue: number;
  /** Smallest expected count of a cell; below 5 the law is a poor guide. */
  readonly leastExpected: number;
  readonly smallCells: boolean;
}

/** One stratum: the margins of its table. */
export interface Margins {
  readonly rows: Float64Array;
  readonly columns: Float64Array;
}

const sumOf = (values: Float64Array): number => values.reduce((sum, value) => sum + value, 0);

/** The test over one table, or over strata: degrees of freedom add up. @param pluginNats I0(X;Y) or I0(X;Y|Z) */
export function asymptoticTest(strata: readonly Margins[], pluginNats: number): AsymptoticTest {
  let degreesOfFreedom = 0;
  let leastExpected = Number.POSITIVE_INFINITY;
  let total = 0;
  for (const { rows, columns } of strata) {
    const [r, c] = [rows, columns].map((margin) => margin.filter((count) => count > 0));
    const size = sumOf(r);
    total += size;
    degreesOfFreedom += (r.length - 1) * (c.length - 1);
    if (r.length > 1 && c.length > 1) {
      leastExpected = Math.min(leastExpected, (Math.min(...least(r)) * Math.min(...least(c))) / size);
    }
  }
  const statistic = 2 * total * Math.max(0, pluginNats);
  return {
    statistic,
    degreesOfFreedom,
    pValue: chiSquareSurvival(statistic, degreesOfFreedom),
    leastExpected,
    smallCells: leastExpected < 5,
  };
}

/** The least entry as a list of one, safe for any length. */
const least = (values: Float64Array): [number] => [values.reduce((a, b) => Math.min(a, b))];

/**
 * A random table with the given margins, as when one column of the data is shuffled: entries row by row, each
 * hypergeometric given those before. `target` [rows * columns].
 */
export function drawTable(random: Random, { rows, columns }: Margins, target: Float64Array): void {
  const left = columns.slice();
  let total = sumOf(left);
  for (let r = 0; r < rows.length; r++) {
    let need = rows[r];
    let pool = total;
    for (let c = 0; c < left.length; c++) {
      const count = need === 0 || left[c] === 0 ? 0 : drawHypergeometric(random, pool, left[c], need);
      target[r * left.length + c] = count;
      pool -= left[c];
      need -= count;
      left[c] -= count;
    }
    total -= rows[r];
  }
}

/** Expected steps of `drawTable`: one a cell and the spread of its count. */
export function tableCost({ rows, columns }: Margins): number {
  const total = sumOf(rows);
  let cost = 0;
  for (let r = 0; r < rows.length; r++) {
    for (let c = 0; c < columns.length; c++) cost += 8 + Math.sqrt((rows[r] * columns[c]) / total);
  }
  return cost;
}

/** Cells beyond which tables are not enumerated: the recursion is as deep. */
const MOST_CELLS = 2000;

/**
 * Visits every table with the given margins with its probability under independence; stops when `visit` gives false.
 * @returns whether all were visited
 */
export function eachTable(
  { rows, columns }: Margins,
  visit: (table: Float64Array, probability: number) => boolean,
): boolean {
  const [r, c] = [rows.length, columns.length];
  if (r * c > MOST_CELLS) return false;
  const table = new Float64Array(r * c);
  const left = columns.slice();
  const logFactorial = (n: number): number => logGamma(n + 1);
  const total = sumOf(rows);
  let constant = -logFactorial(total);
  for (const count of rows) constant += logFactorial(count);
  for (const count of columns) constant += logFactorial(count);
  const fill = (row: number, column: number, need: number, logWeight: number): boolean => {
    if (row === r - 1) {
      let weight = logWeight;
      for (let j = 0; j < c; j++) {
        table[row * c + j] = left[j];
        weight -= logFactorial(left[j]);
      }
      return visit(table, Math.exp(constant + weight));
    }
    if (column === c - 1) {
      if (need > left[column]) return true;
      table[row * c + column] = need;
      left[column] -= need;
      const goesOn = fill(row + 1, 0, rows[row + 1], logWeight - logFactorial(need));
      left[column] += need;
      return goesOn;
    }
    let room = 0;
    for (let j = column + 1; j < c; j++) room += left[j];
    for (let count = Math.max(0, need - room); count <= Math.min(need, left[column]); count++) {
      table[row * c + column] = count;
      left[column] -= count;
      const goesOn = fill(row, column + 1, need - count, logWeight - logFactorial(count));
      left[column] += count;
      if (!goesOn) return false;
    }
    return true;
  };
  return fill(0, 0, rows[0], 0);
}

/** Number of tables with the given margins, or undefined above `most`. */
export function countTables(margins: Margins, most: number): number | undefined {
  let count = 0;
  const all = eachTable(margins, () => ++count <= most);
  return all ? count : undefined;
}
