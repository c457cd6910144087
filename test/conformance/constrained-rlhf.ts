import { cachedSimplex } from '../../src/linalg/cached-simplex.js';
import { pearson } from '../../src/linalg/correlation.js';
import {
  divergenceWeight,
  mixAdvantages,
  type Squash,
  squashed,
  startMultipliers,
  updateMultipliers,
} from '../../src/policy/reward/multipliers.js';
import { boxOf, columnOf } from '../../src/policy/reward/proxy-points.js';
import { fitQuadratic, type QuadraticSurface } from '../../src/policy/reward/quadratic-surface.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

type Inputs = { [key: string]: Json };

/** Columns of a matrix [rows, n], row-major. */
const columns = (data: Float64Array, n: number): Float64Array[] =>
  Array.from({ length: n }, (_, i) => columnOf(data, n, i));

function multipliers(inputs: Inputs): Record<string, unknown> {
  const [updates, n] = shapeOf(inputs.reward_to_go, 'reward_to_go');
  const rewards = float64(inputs.reward_to_go, 'reward_to_go');
  const thresholds = float64(inputs.thresholds, 'thresholds');
  const squash = (inputs.squash === 'identity' ? 'none' : inputs.squash) as Squash;
  const settings = {
    squash,
    learningRate: number(inputs.lr, 'lr'),
    momentum: number(inputs.momentum, 'momentum'),
    maxGradientNorm: number(inputs.max_grad_norm, 'max_grad_norm'),
  };
  const state = startMultipliers(float64(inputs.raw_init, 'raw_init'));
  const raw = new Float64Array(updates * n);
  const weights = new Float64Array(updates * n);
  for (let u = 0; u < updates; u++) {
    const update = updateMultipliers(state, rewards.subarray(u * n, (u + 1) * n), thresholds, settings);
    raw.set(update.raw, u * n);
    weights.set(update.multipliers, u * n);
  }
  const divergence = float64(inputs.kl_advantages, 'kl_advantages');
  const constraints = columns(float64(inputs.constraint_advantages, 'constraint_advantages'), n);
  const last = state.raw.map((value) => squashed(value, squash));
  return {
    raw: tensor([updates, n], raw),
    multipliers: tensor([updates, n], weights),
    mixed_advantages: tensor(
      [divergence.length],
      mixAdvantages(divergence, constraints, last, divergenceWeight(last, squash)),
    ),
  };
}

function search(inputs: Inputs): Record<string, unknown> {
  const centre = float64(inputs.center, 'center');
  const scales = float64(inputs.S_diag, 'S_diag');
  const objective = (x: Float64Array): number =>
    x.reduce((sum, value, i) => sum + scales[i] * (value - centre[i]) ** 2, 0) - 1;
  const n = centre.length;
  const result = cachedSimplex(objective, inputs.initial_simplex as number[][], {
    alpha: number(inputs.alpha, 'alpha'),
    gamma: number(inputs.gamma, 'gamma'),
    rho: number(inputs.rho, 'rho'),
    sigma: number(inputs.sigma, 'sigma'),
    tolerance: number(inputs.tol, 'tol'),
    cacheTolerance: number(inputs.cache_tol, 'cache_tol'),
    maxEvaluations: number(inputs.max_iter, 'max_iter'),
  });
  return {
    simplex_history: result.passes.map(({ vertices }) => vertices.map(({ x }) => [...x])),
    final_simplex: tensor(
      [n + 1, n],
      result.final.flatMap((x) => [...x]),
    ),
    evaluations: result.evaluated.map(({ x }) => [...x]),
  };
}

/** A fit that the rows determine. */
function surfaceOf(x: Float64Array, score: Float64Array, n: number): QuadraticSurface {
  const surface = fitQuadratic(x, score, n, boxOf(x, n));
  if (surface === undefined) throw new RangeError('the rows do not determine the surface');
  return surface;
}

function proxyPoints(inputs: Inputs): Record<string, unknown> {
  const [, n] = shapeOf(inputs.rewards, 'rewards');
  const rewards = float64(inputs.rewards, 'rewards');
  const score = float64(inputs.score, 'score');
  const each = columns(rewards, n);
  const single = each.map((column) => surfaceOf(column, score, 1));
  const joint = surfaceOf(rewards, score, n);
  const correlations = each.map((x) => each.map((y) => pearson(x, y)));
  return {
    individual: single.map(({ stationary }) => stationary?.[0] ?? Number.NaN),
    individual_coeffs: single.map(({ coefficients }) => [...coefficients].reverse()),
    joint: tensor([n], joint.stationary ?? new Float64Array(n).fill(Number.NaN)),
    joint_coeffs: tensor([joint.coefficients.length], joint.coefficients),
    hessian_negative_definite: joint.negativeDefinite,
    pearson: n === 2 ? correlations[0][1] : correlations,
  };
}

export function run(inputs: Inputs, wanted: Json): unknown {
  const named =
    'initial_simplex' in inputs ? search(inputs) : 'squash' in inputs ? multipliers(inputs) : proxyPoints(inputs);
  return Object.fromEntries(keysOf(wanted).map((key) => [key, named[key]]));
}
