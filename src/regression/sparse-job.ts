import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import { type FeatureSource, loadMatrix } from '../formats/feature-matrix.js';
import { type LabelKind, type Labels, labelCount } from '../formats/labels.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { acceleratedGradient } from './accelerated-gradient.js';
import { type CompositeProblem, sparseProblem } from './composite.js';
import { type CrossValidation, crossValidate } from './cross-validation.js';
import { createLoss, type Design, type Family } from './loss.js';
import { lambdaSequence, largestLambda, type PathOptions, type PathPoint, type PathStart, solvePath } from './path.js';
import { createPenalty, type PenaltyKind, withLambda } from './penalty.js';
import { conjugateGradient, type LineSearch } from './proximal-conjugate-gradient.js';
import { proximalGradient } from './proximal-gradient.js';
import type { SolverName } from './solve.js';
import { designOf, standardiseRows } from './standardise.js';

export type LambdaRule = 'min' | '1se' | 'given';

export interface SparseSettings {
  readonly family: Family | 'auto';
  readonly penalty: PenaltyKind;
  readonly a: number;
  readonly gamma: number;
  readonly solver: SolverName;
  readonly lineSearch: LineSearch;
  readonly tolerance: number;
  readonly maxIterations: number;
  readonly start: PathStart;
  readonly strongRule: boolean;
  readonly standardise: boolean;
  readonly pathLength: number;
  readonly pathRatio: number;
  /** One lambda instead of a path's choice. */
  readonly lambda?: number;
  readonly lambdaRule: 'min' | '1se';
  readonly folds: number;
  readonly seed: number;
  /** Whether all solvers are run at the chosen lambda, step by step. */
  readonly compareSolvers: boolean;
}

/** A design with its outcome, or where the features are. */
export type SparseInput =
  | { readonly kind: 'design'; readonly values: Float64Array; readonly names: readonly string[]; readonly name: string }
  | { readonly kind: 'source'; readonly source: FeatureSource };

export interface SparseArguments {
  readonly input: SparseInput;
  readonly labels: Labels;
  readonly labelName: string;
  readonly labelKind: LabelKind;
  readonly settings: SparseSettings;
  readonly maxMemoryBytes: number;
}

/** How one solver came down at the chosen lambda. */
export interface SolverTrace {
  readonly solver: SolverName;
  readonly lineSearch: LineSearch | null;
  /** Objective less the best one found, after each iteration. */
  readonly gap: Float64Array;
  /** Gradient evaluations up to each iteration. */
  readonly gradients: Int32Array;
}

export interface SparseResult {
  readonly rows: number;
  readonly columns: number;
  readonly names: readonly string[];
  readonly family: Family;
  /** Names of the two classes of a logistic outcome: 0, then 1. */
  readonly classes: readonly string[];
  readonly lambdaMax: number;
  readonly points: readonly PathPoint[];
  readonly chosen: number;
  readonly rule: LambdaRule;
  readonly validation?: CrossValidation;
  readonly centre: Float64Array;
  readonly scale: Float64Array;
  /** Loss of the intercept alone. */
  readonly nullLoss: number;
  readonly traces: readonly SolverTrace[];
}

/** Copies of the design that the work holds: as read, in columns, standardised, and a fold of it. */
const DESIGN_COPIES = 4;
const LEAST_ROWS = 8;

/** Iterations of a comparison of solvers. */
const TRACE_ITERATIONS = 200;

/**
 * Sparse regression along a path of lambdas, with cross-validation. Runs in a thread of its own.
 * @throws InputError for rows that do not fit, an outcome of one class or of more than two, a constant outcome, features
 *   that do not fit the memory
 */
export async function regressSparsely(
  args: SparseArguments,
  progress: (done: { done: number; of: number }) => void,
): Promise<SparseResult> {
  const { design, names, name } = await openDesign(args);
  const { settings } = args;
  const { family, y, classes } = outcomeOf(args, design.rows, name);
  const { folds } = settings;
  const validated = settings.lambda === undefined && folds > 1;
  if (validated && folds > design.rows) {
    throw new InputError(`--folds ${folds}: there are only ${design.rows} rows`);
  }
  const all = Int32Array.from({ length: design.rows }, (_, i) => i);
  const { design: inner, centre, scale } = standardiseRows(design, all, settings.standardise);
  const loss = createLoss(family, inner, y);
  const { solver, lineSearch, tolerance, maxIterations } = settings;
  const base = { solver, lineSearch, tolerance, maxIterations };
  const lambdaMax = largestLambda(loss, base);
  const lambdas =
    settings.lambda === undefined
      ? lambdaSequence(lambdaMax, settings.pathLength, settings.pathRatio)
      : pathDownTo(settings.lambda, lambdaMax, settings);
  const penalty = createPenalty(settings.penalty, lambdas[0], settings.a, settings.gamma);
  const of = lambdas.length * (validated ? folds + 1 : 1);
  let done = 0;
  const onPoint = (): void => progress({ done: ++done, of });
  const options: PathOptions = { ...base, from: settings.start, strongRule: settings.strongRule, onPoint };
  const points = solvePath(loss, penalty, lambdas, options);
  const validation = validated
    ? crossValidate(family, design, y, penalty, lambdas, {
        ...options,
        folds,
        seed: settings.seed,
        standardise: settings.standardise,
      })
    : undefined;
  const chosen =
    validation === undefined
      ? lambdas.length - 1
      : settings.lambdaRule === '1se'
        ? validation.oneStandardError
        : validation.best;
  const empty = new Float64Array(loss.size);
  empty[0] = family === 'linear' ? mean(y) : Math.log(mean(y) / (1 - mean(y)));
  return {
    rows: design.rows,
    columns: design.columns,
    names,
    family,
    classes,
    lambdaMax,
    points,
    chosen,
    rule: validation === undefined ? 'given' : settings.lambdaRule,
    ...(validation && { validation }),
    centre,
    scale,
    nullLoss: loss.gradient(empty, new Float64Array(loss.size)),
    traces: settings.compareSolvers ? traceSolvers(sparseProblem(loss, withLambda(penalty, lambdas[chosen]))) : [],
  };
}

export const REGRESS_SPARSELY: ComputeReference<SparseArguments, SparseResult> = {
  module: import.meta.url,
  job: regressSparsely,
};

const mean = (y: Float64Array): number => y.reduce((sum, value) => sum + value, 0) / y.length;

/** Warm starts on the way to one lambda; from zeros nothing is gained by a path. */
function pathDownTo(lambda: number, largest: number, settings: SparseSettings): Float64Array {
  createPenalty(settings.penalty, lambda, settings.a, settings.gamma);
  if (settings.start === 'zeros' || lambda >= largest) return new Float64Array([lambda]);
  const steps = Math.max(2, Math.ceil(10 * Math.log10(largest / lambda)));
  return lambdaSequence(largest, steps + 1, lambda / largest);
}

async function openDesign(args: SparseArguments): Promise<{ design: Design; names: readonly string[]; name: string }> {
  const { input } = args;
  if (input.kind === 'design') {
    const columns = input.names.length;
    const design = { values: input.values, rows: input.values.length / columns, columns };
    return { design, names: input.names, name: input.name };
  }
  const matrix = await openFeatures(input.source);
  try {
    const { rows, columns } = matrix;
    if (rows < LEAST_ROWS)
      throw new InputError(`${matrix.name}: ${rows} rows; a regression needs at least ${LEAST_ROWS}`);
    const needed = DESIGN_COPIES * 8 * rows * columns;
    if (needed > args.maxMemoryBytes) {
      throw new InputError(
        `${matrix.name}: ${rows} x ${columns} features need ${Math.ceil(needed / 2 ** 20)} MiB; raise --max-memory, or ` +
          'choose columns first with analyze-entropy screen --then',
      );
    }
    const names = matrix.columnNames ?? Array.from({ length: columns }, (_, j) => `column_${j}`);
    return { design: designOf(loadMatrix(matrix), rows, columns), names, name: matrix.name };
  } finally {
    matrix.close();
  }
}

interface RegressionOutcome {
  readonly family: Family;
  readonly y: Float64Array;
  readonly classes: readonly string[];
}

function outcomeOf(args: SparseArguments, rows: number, name: string): RegressionOutcome {
  const { labels, labelName, settings } = args;
  const count = labelCount(labels);
  if (count !== rows)
    throw new InputError(`${labelName}: ${count} values, but ${name} has ${rows} rows; give one a row`);
  const numbers =
    labels.kind === 'numbers' ? labels.values : Float64Array.from(labels.codes, (code) => Number(labels.names[code]));
  const numeric = numbers.every(Number.isFinite);
  const distinct = labels.kind === 'classes' ? labels.names.length : new Set(numbers).size;
  if (distinct < 2) throw new InputError(`${labelName}: the outcome is constant; there is nothing to explain`);
  const family = settings.family === 'auto' ? (distinct === 2 || !numeric ? 'logistic' : 'linear') : settings.family;
  if (family === 'linear') {
    if (!numeric) throw new InputError(`${labelName}: holds text; a linear regression needs numbers`);
    return { family, y: numbers, classes: [] };
  }
  if (distinct !== 2) {
    throw new InputError(
      `${labelName}: ${distinct} classes; logistic regression needs 2: name a column of two classes`,
    );
  }
  const classes = labels.kind === 'classes' ? labels.names : [...new Set(numbers)].sort((a, b) => a - b).map(String);
  const codes =
    labels.kind === 'classes' ? labels.codes : numbers.map((value) => (String(value) === classes[0] ? 0 : 1));
  return { family, y: Float64Array.from(codes), classes };
}

/** All solvers from zeros on one problem, with the gap to the best objective that any of them reaches. */
export function traceSolvers(problem: CompositeProblem, iterations = TRACE_ITERATIONS): SolverTrace[] {
  const scratch = new Float64Array(problem.size);
  const objectives: { solver: SolverName; lineSearch: LineSearch | null; values: number[]; gradients: number[] }[] = [];
  const record = (solver: SolverName, lineSearch: LineSearch | null) => {
    const trace = { solver, lineSearch, values: [] as number[], gradients: [] as number[] };
    objectives.push(trace);
    return (x: Float64Array, _iteration: number, gradients: number): void => {
      trace.values.push(problem.gradient(x, scratch));
      trace.gradients.push(gradients);
    };
  };
  const common = { tolerance: 0, maxIterations: iterations };
  proximalGradient(problem, { ...common, onIteration: record('pg', null) });
  acceleratedGradient(problem, { ...common, onIteration: record('ag', null) });
  for (const lineSearch of ['exact', 'wolfe'] as const) {
    conjugateGradient(problem, { ...common, tolerance: 1e-13, lineSearch, onIteration: record('ncg', lineSearch) });
  }
  const close = conjugateGradient(problem, { tolerance: 1e-13, maxIterations: 5000 });
  const best = Math.min(problem.gradient(close.x, scratch), ...objectives.flatMap(({ values }) => values));
  return objectives.map(({ solver, lineSearch, values, gradients }) => ({
    solver,
    lineSearch,
    gap: Float64Array.from(values, (value) => value - best),
    gradients: Int32Array.from(gradients),
  }));
}
