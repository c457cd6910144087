import type { Random } from '../random.js';
import type { Margins } from './contingency.js';
import { drawTable, eachTable, tableCost } from './contingency.js';
import { profileOf } from './count-profile.js';
import type { EntropyEstimator } from './entropy-estimators.js';
import { drawOrder, type Exchange } from './row-orders.js';
import type { Symbols } from './symbols.js';

/**
 * A measure under exchange of one variable's rows: `fixed` plus the entropies of the exchanged variable joined with each
 * of `joined`, which alone depend on the order.
 */
export interface ShuffledMeasure {
  readonly exchanged: Symbols;
  readonly fixed: number;
  readonly joined: readonly { readonly sign: 1 | -1; readonly other: Symbols; readonly support: number }[];
}

/** Joint cells beyond this many times the rows are counted by sorting. */
const TABLE_FACTOR = 8;
const LEAST_TABLE = 1 << 20;

/** Counts pairs of symbols, the first variable taken in another order; a buffer serves all orders. */
function pairCounter(first: Symbols, second: Symbols): (order: Int32Array) => ArrayLike<number> {
  const rows = first.codes.length;
  const cells = first.size * second.size;
  if (cells <= Math.max(LEAST_TABLE, TABLE_FACTOR * rows)) {
    const counts = new Float64Array(cells);
    return (order) => {
      counts.fill(0);
      for (let i = 0; i < rows; i++) counts[first.codes[order[i]] * second.size + second.codes[i]]++;
      return counts;
    };
  }
  const keys = new Float64Array(rows);
  return (order) => {
    for (let i = 0; i < rows; i++) keys[i] = first.codes[order[i]] * second.size + second.codes[i];
    keys.sort();
    const counts: number[] = [];
    for (let i = 0; i < rows; i++) {
      if (i > 0 && keys[i] === keys[i - 1]) counts[counts.length - 1]++;
      else counts.push(1);
    }
    return counts;
  };
}

/** The measure for an order of the exchanged variable's rows (`order[i]` is the row placed at i). */
export function measureInOrder(measure: ShuffledMeasure, estimator: EntropyEstimator): (order: Int32Array) => number {
  const counters = measure.joined.map(({ other }) => pairCounter(measure.exchanged, other));
  return (order) => {
    let sum = measure.fixed;
    measure.joined.forEach(({ sign, support }, t) => {
      sum += sign * estimator.value(profileOf(counters[t](order)), support);
    });
    return sum;
  };
}

/** Null values of replicates first..first+count-1; replicate b draws from the stream b of `random`, whatever came before. */
export function shuffledValues(
  measure: ShuffledMeasure,
  estimator: EntropyEstimator,
  exchange: Exchange,
  random: Random,
  count: number,
  onReplicate: () => void = () => undefined,
): Float64Array {
  const rows = measure.exchanged.codes.length;
  const value = measureInOrder(measure, estimator);
  return Float64Array.from({ length: count }, (_, b) => {
    onReplicate();
    return value(drawOrder(exchange, rows, random.fork(b)));
  });
}

/** Margins of the exchanged variable and the other one, where a single joint entropy varies and rows are all exchangeable. */
export function tableMargins(measure: ShuffledMeasure, exchange: Exchange): Margins | undefined {
  if (exchange.kind !== 'rows' || measure.joined.length !== 1) return undefined;
  const count = ({ codes, size }: Symbols): Float64Array => {
    const counts = new Float64Array(size);
    for (let i = 0; i < codes.length; i++) counts[codes[i]]++;
    return counts;
  };
  return { rows: count(measure.exchanged), columns: count(measure.joined[0].other) };
}

/** Cost of drawing a random number and counting a row, in steps of `tableCost`. */
const ROW_COST = 4;

/** Whether drawing tables is quicker than shuffling rows. */
export function prefersTables(margins: Margins, rows: number): boolean {
  return tableCost(margins) < ROW_COST * rows;
}

/** Null values from random tables with the given margins: the same law as shuffled rows, without going through them. */
export function tableValues(
  measure: ShuffledMeasure,
  estimator: EntropyEstimator,
  margins: Margins,
  random: Random,
  count: number,
  onReplicate: () => void = () => undefined,
): Float64Array {
  const table = new Float64Array(margins.rows.length * margins.columns.length);
  const [{ sign, support }] = measure.joined;
  return Float64Array.from({ length: count }, (_, b) => {
    onReplicate();
    drawTable(random.fork(b), margins, table);
    return measure.fixed + sign * estimator.value(profileOf(table), support);
  });
}

/** Values and probabilities of all tables with the given margins. */
export function enumeratedValues(
  measure: ShuffledMeasure,
  estimator: EntropyEstimator,
  margins: Margins,
): { values: number[]; probabilities: number[] } {
  const [{ sign, support }] = measure.joined;
  const values: number[] = [];
  const probabilities: number[] = [];
  eachTable(margins, (table, probability) => {
    values.push(measure.fixed + sign * estimator.value(profileOf(table), support));
    probabilities.push(probability);
    return true;
  });
  return { values, probabilities };
}
