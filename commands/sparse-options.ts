import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { DEFAULT_ITERATIONS, DEFAULT_TOLERANCE } from '../src/regression/composite.js';
import { FAMILIES } from '../src/regression/loss.js';
import { DEFAULT_PATH_LENGTH } from '../src/regression/path.js';
import { createPenalty, DEFAULT_A, DEFAULT_GAMMA, type PenaltyKind } from '../src/regression/penalty.js';
import { SOLVERS } from '../src/regression/solve.js';
import type { SparseSettings } from '../src/regression/sparse-job.js';
import type { ReportValue } from '../src/report/values.js';
import { parseChoice, parseInteger, parseNumber } from './edge-values.js';

/** Options of sparse regression, as commander gives them. */
export interface SparseOwnOptions {
  family?: string;
  a?: string;
  gamma?: string;
  solver?: string;
  lineSearch?: string;
  tolerance?: string;
  maxIterations?: string;
  start?: string;
  strongRule?: boolean;
  standardise?: boolean;
  lambda?: string;
  lambdas?: string;
  lambdaRatio?: string;
  lambdaRule?: string;
  folds?: string;
}

const DEFAULT_RATIO = 1e-3;
const DEFAULT_FOLDS = 10;

/** Declares the options that `regress` and `screen --then` share. */
export function addSparseOptions(command: Command): Command {
  return command
    .option('--family <name>', `auto, ${FAMILIES.join(' or ')} (default auto: two classes are logistic)`)
    .option('--a <a>', `where SCAD becomes flat, above 2 (default ${DEFAULT_A})`)
    .option('--gamma <g>', `where MCP becomes flat, above 1 (default ${DEFAULT_GAMMA})`)
    .option('--solver <name>', `${SOLVERS.join(', ')}: accelerated, conjugate or plain proximal gradients (default ag)`)
    .option('--line-search <how>', 'ncg: exact or wolfe (default exact)')
    .option('--tolerance <t>', `largest move of a coefficient at the end (default ${DEFAULT_TOLERANCE})`)
    .option('--max-iterations <n>', `iterations of one lambda (default ${DEFAULT_ITERATIONS})`)
    .option('--start <from>', 'path, the solution before, or zeros (default path)')
    .option('--no-strong-rule', 'give the solver all columns at every lambda')
    .option('--no-standardise', 'leave the columns as they are')
    .option('--lambda <x>', 'one lambda, without cross-validation')
    .option('--lambdas <n>', `lambdas of the path (default ${DEFAULT_PATH_LENGTH})`)
    .option('--lambda-ratio <r>', `the smallest lambda over the largest (default ${DEFAULT_RATIO})`)
    .option('--lambda-rule <rule>', 'min, or 1se: the sparsest within one standard error (default min)')
    .option('--folds <n>', `folds of cross-validation (default ${DEFAULT_FOLDS})`);
}

function positive(flag: string, text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : parseNumber(flag, text);
  if (value > 0) return value;
  throw new InputError(`${flag} ${text}: must be positive`);
}

/**
 * The settings that the options give.
 * @throws InputError for a <= 2, gamma <= 1, lambda <= 0 and values outside their range
 */
export function sparseSettings(
  penalty: PenaltyKind,
  own: SparseOwnOptions,
  seed: number,
  compareSolvers = false,
): SparseSettings {
  const a = own.a === undefined ? DEFAULT_A : parseNumber('--a', own.a);
  const gamma = own.gamma === undefined ? DEFAULT_GAMMA : parseNumber('--gamma', own.gamma);
  const lambda = own.lambda === undefined ? undefined : parseNumber('--lambda', own.lambda);
  createPenalty(penalty, lambda ?? 1, a, gamma);
  const pathRatio = positive('--lambda-ratio', own.lambdaRatio, DEFAULT_RATIO);
  if (pathRatio >= 1) throw new InputError(`--lambda-ratio ${own.lambdaRatio}: must be below 1`);
  return {
    family: parseChoice('--family', own.family ?? 'auto', ['auto', ...FAMILIES] as const),
    penalty,
    a,
    gamma,
    solver: parseChoice('--solver', own.solver ?? 'ag', SOLVERS),
    lineSearch: parseChoice('--line-search', own.lineSearch ?? 'exact', ['exact', 'wolfe'] as const),
    tolerance: positive('--tolerance', own.tolerance, DEFAULT_TOLERANCE),
    maxIterations: parseInteger('--max-iterations', own.maxIterations ?? String(DEFAULT_ITERATIONS), 1),
    start: parseChoice('--start', own.start ?? 'path', ['path', 'zeros'] as const),
    strongRule: own.strongRule !== false,
    standardise: own.standardise !== false,
    pathLength: parseInteger('--lambdas', own.lambdas ?? String(DEFAULT_PATH_LENGTH), 2),
    pathRatio,
    ...(lambda !== undefined && { lambda }),
    lambdaRule: parseChoice('--lambda-rule', own.lambdaRule ?? 'min', ['min', '1se'] as const),
    folds: parseInteger('--folds', own.folds ?? String(DEFAULT_FOLDS), 2),
    seed,
    compareSolvers,
  };
}

/** What decides a sparse regression, for a report's parameters. */
export function sparseParameters(settings: SparseSettings): Record<string, ReportValue> {
  return {
    family: settings.family,
    penalty: settings.penalty,
    a: settings.a,
    gamma: settings.gamma,
    solver: settings.solver,
    line_search: settings.lineSearch,
    tolerance: settings.tolerance,
    max_iterations: settings.maxIterations,
    start: settings.start,
    strong_rule: settings.strongRule,
    standardise: settings.standardise,
    lambda: settings.lambda ?? null,
    lambdas: settings.pathLength,
    lambda_ratio: settings.pathRatio,
    lambda_rule: settings.lambdaRule,
    folds: settings.folds,
  };
}
