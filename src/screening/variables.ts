import { InputError } from '../errors.js';
import type { Labels } from '../formats/labels.js';
import type { CodeBlock, Codes, ColumnBlock } from '../kernels/column-information.js';
import { regularBins } from '../kernels/column-information.js';

/** Fewest observations of a screening. */
export const FEWEST_ROWS = 8;
/** A variable with at most this many distinct values (and n / 5 of them at most, but always 2) is discrete. */
export const DEFAULT_DISCRETE_LEVELS = 10;

/** How many distinct values a discrete variable of n observations may have. */
export function mostLevels(n: number, discreteLevels: number): number {
  return Math.max(2, Math.min(discreteLevels, Math.floor(n / 5)));
}

/** The distinct values of a variable in ascending order, or undefined when there are more than `most`. */
export function distinctValues(x: Float64Array, most: number): number[] | undefined {
  const seen: number[] = [];
  for (let i = 0; i < x.length; i++) {
    if (seen.includes(x[i])) continue;
    if (seen.length === most) return undefined;
    seen.push(x[i]);
  }
  return seen.sort((a, b) => a - b);
}

/** The variable that columns are compared with. */
export interface Outcome {
  readonly kind: 'continuous' | 'discrete';
  readonly n: number;
  /** Amounts; of a discrete outcome the numbers of its levels, or 0 and 1 for two classes; absent for other classes. */
  readonly values: Float64Array | undefined;
  /** Classes of a discrete outcome, bins of a continuous one. */
  readonly codes: Codes;
  /** Names of the classes of a discrete outcome. */
  readonly levelNames: readonly string[];
}

function continuousOutcome(values: Float64Array): Outcome {
  const bins = regularBins({ values, count: 1, n: values.length });
  return {
    kind: 'continuous',
    n: values.length,
    values,
    codes: { codes: bins.codes, levels: bins.levels[0] },
    levelNames: [],
  };
}

function discreteOutcome(codes: Int32Array, names: readonly string[]): Outcome {
  const amounts = names.map(Number);
  const numeric = names.every((name, k) => name.trim() !== '' && Number.isFinite(amounts[k]));
  const levelValues = numeric ? amounts : names.length === 2 ? [0, 1] : undefined;
  return {
    kind: 'discrete',
    n: codes.length,
    values: levelValues && Float64Array.from(codes, (code) => levelValues[code]),
    codes: { codes, levels: names.length },
    levelNames: names,
  };
}

/**
 * A variable of numbers as an outcome: discrete when it has few distinct values.
 * @throws InputError when it is constant
 */
export function outcomeOfValues(values: Float64Array, name: string, discreteLevels: number): Outcome {
  const levels = distinctValues(values, mostLevels(values.length, discreteLevels));
  if (levels === undefined) return continuousOutcome(values);
  if (levels.length < 2) throw new InputError(`${name} is constant (${levels[0]}): there is nothing to explain`);
  const codeOf = new Map(levels.map((value, code) => [value, code]));
  return discreteOutcome(
    Int32Array.from(values, (value) => codeOf.get(value) ?? 0),
    levels.map(String),
  );
}

/**
 * Labels as an outcome. Numbers (`auto` calls whole ones classes) are discrete only when they have few distinct values,
 * unless `kind` says what they are.
 * @throws InputError for fewer than 2 classes or 8 rows
 */
export function outcomeOfLabels(
  labels: Labels,
  name: string,
  kind: 'auto' | 'classes' | 'numbers',
  discreteLevels: number,
): Outcome {
  const n = labels.kind === 'classes' ? labels.codes.length : labels.values.length;
  if (n < FEWEST_ROWS) throw new InputError(`${name}: ${n} rows; screening needs at least ${FEWEST_ROWS}`);
  if (labels.kind === 'numbers') {
    if (kind !== 'numbers') return outcomeOfValues(labels.values, name, discreteLevels);
    if (distinctValues(labels.values, 1) !== undefined) return outcomeOfValues(labels.values, name, discreteLevels);
    return continuousOutcome(labels.values);
  }
  if (labels.names.length < 2) {
    throw new InputError(
      `${name}: fewer than 2 classes: all rows are ${JSON.stringify(labels.names[0] ?? '')}; nothing can be told apart`,
    );
  }
  const amounts = labels.names.map(Number);
  if (kind === 'auto' && amounts.every(Number.isFinite)) {
    const values = Float64Array.from(labels.codes, (code) => amounts[code]);
    return outcomeOfValues(values, name, discreteLevels);
  }
  return discreteOutcome(labels.codes, labels.names);
}

/** Columns of one block, apart by kind; `at` says which column of the block each is. */
export interface MixedBlock {
  readonly count: number;
  readonly n: number;
  readonly continuous: ColumnBlock;
  readonly continuousAt: Int32Array;
  readonly discrete: CodeBlock;
  readonly discreteAt: Int32Array;
  /** Columns with one value only, in neither of the two. */
  readonly constantAt: Int32Array;
}

/** Sorts the columns of a block `[count, n]` by kind. */
export function splitBlock(block: ColumnBlock, discreteLevels: number): MixedBlock {
  const { values, count, n } = block;
  const continuousAt: number[] = [];
  const discreteAt: number[] = [];
  const constantAt: number[] = [];
  const codes: Int32Array[] = [];
  const levels: number[] = [];
  const most = mostLevels(n, discreteLevels);
  for (let j = 0; j < count; j++) {
    const x = values.subarray(j * n, (j + 1) * n);
    const distinct = distinctValues(x, most);
    if (distinct === undefined) continuousAt.push(j);
    else if (distinct.length === 1) constantAt.push(j);
    else {
      discreteAt.push(j);
      levels.push(distinct.length);
      codes.push(Int32Array.from(x, (value) => distinct.indexOf(value)));
    }
  }
  const all = continuousAt.length === count;
  const kept = all ? values.subarray(0, count * n) : new Float64Array(continuousAt.length * n);
  if (!all) {
    for (const [k, j] of continuousAt.entries()) kept.set(values.subarray(j * n, (j + 1) * n), k * n);
  }
  const joined = new Int32Array(codes.length * n);
  for (const [k, own] of codes.entries()) joined.set(own, k * n);
  return {
    count,
    n,
    continuous: { values: kept, count: continuousAt.length, n },
    continuousAt: Int32Array.from(continuousAt),
    discrete: { codes: joined, levels: Int32Array.from(levels), count: codes.length, n },
    discreteAt: Int32Array.from(discreteAt),
    constantAt: Int32Array.from(constantAt),
  };
}
