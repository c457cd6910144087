import { InputError } from '../errors.js';
import type { FeatureSource } from '../formats/feature-matrix.js';
import { type LabelKind, type Labels, labelCount, labelsFrom } from '../formats/labels.js';
import type { ColumnTest } from '../kernels/column-information.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { pearson } from '../linalg/correlation.js';
import { type ClumpDecision, clumpColumns } from './clumping.js';
import { type OpenColumns, openColumns } from './column-source.js';
import type { ColumnStore } from './column-store.js';
import { type EstimatorName, type EstimatorSettings, measureBlock } from './estimators.js';
import { permutationOrders } from './permutation.js';
import { rankColumns } from './ranking.js';
import { binnedError, kernelError } from './standard-errors.js';
import {
  distinctValues,
  FEWEST_ROWS,
  type Outcome,
  outcomeOfLabels,
  outcomeOfValues,
  splitBlock,
} from './variables.js';

/** Where the outcome is: beside the features, or in a column of their table. */
export type OutcomeSource =
  | { readonly kind: 'labels'; readonly name: string; readonly labels: Labels }
  | { readonly kind: 'column'; readonly name: string };

export interface ScreenArguments {
  readonly source: FeatureSource;
  readonly outcome: OutcomeSource;
  readonly outcomeKind: LabelKind;
  /** The first one ranks. */
  readonly estimators: readonly EstimatorName[];
  readonly settings: EstimatorSettings;
  readonly discreteLevels: number;
  readonly permutations: number;
  readonly stopAfter: number;
  /** Whether constant columns are left out instead of refused. */
  readonly skipConstant: boolean;
  /** Columns that are listed, given standard errors, and kept for what follows. */
  readonly top: number;
  /** Information above which a later column is dropped. */
  readonly clump?: number;
  /** Whether the values of the kept columns are given back. */
  readonly keepValues: boolean;
  readonly shard?: { readonly index: number; readonly count: number };
  readonly maxMemoryBytes: number;
  readonly scratchDirectory: string;
}

/** Figures of all columns of this run (of one shard), in the order of their places; absent figures are NaN. */
export interface ScreenResult {
  readonly rows: number;
  /** All feature columns of the input. */
  readonly total: number;
  readonly names: readonly string[];
  readonly places: Int32Array;
  /** 0 continuous, 1 discrete, 2 constant. */
  readonly kinds: Uint8Array;
  readonly nats: Readonly<Partial<Record<EstimatorName, Float64Array>>>;
  readonly errors: Readonly<Partial<Record<EstimatorName, Float64Array>>>;
  readonly r: Float64Array;
  readonly exceedances: Int32Array;
  readonly drawn: Int32Array;
  readonly nullSums: Float64Array;
  readonly outcome: {
    readonly kind: 'continuous' | 'discrete';
    readonly bins: number;
    readonly levelNames: readonly string[];
    readonly levelCounts: Int32Array;
  };
  readonly spilled: boolean;
  /** Columns kept, best first: those of `--clump`, else the first `top`. Places within this result. */
  readonly kept: Int32Array;
  readonly clumps: readonly ClumpDecision[];
  /** `[kept, rows]`, where asked for. */
  readonly keptValues?: Float64Array;
  /** The outcome's numbers, where the values are kept and it has any. */
  readonly outcomeValues?: Float64Array;
}

/** Memory beside the matrix: the runtime, the grids, one block of columns. */
const RESERVED_BYTES = 256 << 20;
const BLOCK_BYTES = 32 << 20;
const MOST_COLUMNS_AT_ONCE = 1024;

/** Bytes that the matrix of features may take under a limit of the whole process. */
export function matrixBytes(maxMemoryBytes: number): number {
  return Math.max(16 << 20, Math.floor(0.75 * (maxMemoryBytes - RESERVED_BYTES)));
}

/**
 * Ranks the columns of a matrix by their mutual information with an outcome. Runs in a thread of its own.
 * @throws InputError for fewer than 8 rows, an outcome that is missing or constant, constant columns, cells without number
 */
export async function screenColumns(
  args: ScreenArguments,
  progress: (done: { columns: number; of: number }) => void,
): Promise<ScreenResult> {
  const { shard, outcome } = args;
  const columns = await openColumns(args.source, {
    ...(outcome.kind === 'column' && { textColumn: outcome.name }),
    ...(shard && { takes: (index: number) => index % shard.count === shard.index }),
    maxBytes: matrixBytes(args.maxMemoryBytes),
    scratchDirectory: args.scratchDirectory,
  });
  try {
    return screenStore(args, columns, openOutcome(args, columns), progress);
  } finally {
    columns.store.close();
  }
}

export const SCREEN_COLUMNS: ComputeReference<ScreenArguments, ScreenResult> = {
  module: import.meta.url,
  job: screenColumns,
};

function openOutcome(args: ScreenArguments, { store, texts }: OpenColumns): Outcome {
  const { outcome, source } = args;
  const name = source.kind === 'file' ? source.path : source.name;
  if (store.rows < FEWEST_ROWS) {
    throw new InputError(`${name}: ${store.rows} rows; screening needs at least ${FEWEST_ROWS}`);
  }
  if (outcome.kind === 'labels') {
    const count = labelCount(outcome.labels);
    if (count !== store.rows) {
      throw new InputError(`${outcome.name}: ${count} values, but ${name} has ${store.rows} rows; give one a row`);
    }
    return outcomeOfLabels(outcome.labels, outcome.name, args.outcomeKind, args.discreteLevels);
  }
  const where = `${name}: outcome "${outcome.name}"`;
  const cells = texts ?? [];
  const labels = labelsFrom(cells, where, args.outcomeKind);
  return outcomeOfLabels(labels, where, args.outcomeKind, args.discreteLevels);
}

function screenStore(
  args: ScreenArguments,
  { store, names, places, total }: OpenColumns,
  outcome: Outcome,
  progress: (done: { columns: number; of: number }) => void,
): ScreenResult {
  const { columns, rows: n } = store;
  const { estimators, settings, discreteLevels } = args;
  const [rankedBy] = estimators;
  const nats: Partial<Record<EstimatorName, Float64Array>> = {};
  const errors: Partial<Record<EstimatorName, Float64Array>> = {};
  for (const estimator of estimators) {
    nats[estimator] = new Float64Array(columns).fill(Number.NaN);
    if (estimator !== 'ksg') errors[estimator] = new Float64Array(columns).fill(Number.NaN);
  }
  const kinds = new Uint8Array(columns);
  const r = new Float64Array(columns).fill(Number.NaN);
  const exceedances = new Int32Array(columns);
  const drawn = new Int32Array(columns);
  const nullSums = new Float64Array(2 * columns);
  const orders = permutations(args, n);
  const blockColumns = Math.max(1, Math.min(MOST_COLUMNS_AT_ONCE, Math.floor(BLOCK_BYTES / (8 * n))));
  const buffer = new Float64Array(Math.min(blockColumns, Math.max(1, columns)) * n);
  for (let first = 0; first < columns; first += blockColumns) {
    const count = Math.min(blockColumns, columns - first);
    store.read(first, count, buffer);
    const block = splitBlock({ values: buffer, count, n }, discreteLevels);
    for (const j of block.discreteAt) kinds[first + j] = 1;
    for (const j of block.constantAt) kinds[first + j] = 2;
    if (block.constantAt.length > 0 && !args.skipConstant)
      refuseConstant(args, names, first, block.constantAt, buffer, n);
    for (const estimator of estimators) {
      const own = new Float64Array(count).fill(Number.NaN);
      measureBlock(estimator, block, outcome, settings, own);
      nats[estimator]?.set(own, first);
      if (estimator !== rankedBy) continue;
      for (let slice = 0; slice < args.permutations; slice += orders.size) {
        const replicates = Math.min(orders.size, args.permutations - slice);
        const test: ColumnTest = {
          orders: orders.of(slice, replicates),
          replicates,
          stopAfter: args.stopAfter,
          exceedances: exceedances.subarray(first, first + count),
          drawn: drawn.subarray(first, first + count),
          sums: nullSums.subarray(2 * first, 2 * (first + count)),
        };
        measureBlock(estimator, block, outcome, settings, own, test);
      }
    }
    if (outcome.values) {
      for (let j = 0; j < count; j++) r[first + j] = pearson(buffer.subarray(j * n, (j + 1) * n), outcome.values);
    }
    progress({ columns: first + count, of: columns });
  }
  const ranked = rankColumns(nats[rankedBy] ?? new Float64Array(0)).filter((j) => kinds[j] !== 2);
  const clumps = args.clump === undefined ? [] : clump(args, store, ranked, args.clump);
  const kept =
    args.clump === undefined
      ? ranked.slice(0, args.top)
      : Int32Array.from(clumps.filter(({ because }) => because < 0).map(({ column }) => column));
  addErrors(args, store, outcome, new Set([...ranked.subarray(0, args.top), ...kept]), errors);
  const levelCounts = new Int32Array(outcome.codes.levels);
  for (const code of outcome.codes.codes) levelCounts[code]++;
  return {
    rows: n,
    total,
    names,
    places,
    kinds,
    nats,
    errors,
    r,
    exceedances,
    drawn,
    nullSums,
    outcome: { kind: outcome.kind, bins: outcome.codes.levels, levelNames: outcome.levelNames, levelCounts },
    spilled: store.spilled,
    kept,
    clumps,
    ...(args.keepValues && { keptValues: readColumns(store, kept) }),
    ...(args.keepValues && outcome.values && { outcomeValues: outcome.values }),
  };
}

function refuseConstant(
  args: ScreenArguments,
  names: readonly string[],
  first: number,
  constantAt: Int32Array,
  buffer: Float64Array,
  n: number,
): never {
  const at = constantAt[0];
  const where = args.source.kind === 'file' ? args.source.path : args.source.name;
  throw new InputError(
    `${where}: column "${names[first + at]}" is constant (${buffer[at * n]}); remove it, or leave constant columns out with --skip-constant`,
  );
}

/** The permutations of the outcome: all at once where an eighth of the memory holds them, else in slices made anew. */
function permutations(
  args: ScreenArguments,
  n: number,
): { size: number; of(first: number, count: number): Int32Array } {
  const bytes = Math.max(1 << 20, args.maxMemoryBytes / 8);
  const size = Math.max(1, Math.min(args.permutations, Math.floor(bytes / (4 * n))));
  let held: Int32Array | undefined;
  return {
    size,
    of(first, count) {
      if (size < args.permutations) return permutationOrders(args.settings.seed, n, first, count);
      held ??= permutationOrders(args.settings.seed, n, first, count);
      return held;
    },
  };
}

function readColumns(store: ColumnStore, columns: ArrayLike<number>): Float64Array {
  const n = store.rows;
  const values = new Float64Array(columns.length * n);
  for (let k = 0; k < columns.length; k++) store.read(columns[k], 1, values.subarray(k * n, (k + 1) * n));
  return values;
}

function clump(args: ScreenArguments, store: ColumnStore, ranked: Int32Array, threshold: number): ClumpDecision[] {
  const { settings, estimators, discreteLevels } = args;
  const n = store.rows;
  return clumpColumns(ranked, threshold, args.top, (column, others) => {
    const asOutcome = outcomeOfValues(readColumns(store, [column]), 'a column', discreteLevels);
    const block = splitBlock({ values: readColumns(store, others), count: others.length, n }, discreteLevels);
    const nats = new Float64Array(others.length);
    measureBlock(estimators[0], block, asOutcome, settings, nats);
    return nats;
  });
}

function addErrors(
  args: ScreenArguments,
  store: ColumnStore,
  outcome: Outcome,
  listed: ReadonlySet<number>,
  errors: Partial<Record<EstimatorName, Float64Array>>,
): void {
  for (const j of listed) {
    const x = readColumns(store, [j]);
    if (distinctValues(x, 1)) continue;
    if (errors.kernel) errors.kernel[j] = kernelError(x, outcome, args.settings, args.discreteLevels);
    if (errors.binned) errors.binned[j] = binnedError(x, outcome, args.discreteLevels);
  }
}
