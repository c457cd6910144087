import { gaussLegendre } from '../linalg/quadrature-nodes.js';
import { type Branch, likeliestBranch } from './activation-bases.js';
import type { JetFunction } from './activation-expression.js';
import {
  admissibleEps,
  boundaryTerm,
  type FunctionalGrid,
  firstVariation,
  functionalGrid,
  functionalPoint,
  numericDerivative,
  type PerturbedEntropy,
  perturbedEntropy,
} from './activation-functional.js';
import type { InputDensity } from './input-density.js';

export interface SearchSettings {
  /** Nodes of the quadrature. */
  readonly nodes: number;
  /** Values of ε at which H is given; 0 is added. */
  readonly eps: readonly number[];
  /** ε of the improved activation; the admissible one of `eps` with the least entropy when absent. */
  readonly apply?: number;
  /** Probability left out at each end of the branch, where the density has no weight to speak of. */
  readonly tail: number;
  /** The branch ends where the slope of the activation falls to this. */
  readonly leastSlope: number;
  /** Rows of the table. */
  readonly tableRows: number;
}

/** The improved activation beside the old one, over inputs of the branch. */
export interface ActivationTable {
  readonly input: Float64Array;
  readonly base: Float64Array;
  /** Inverse of y + ε η. */
  readonly improved: Float64Array;
  /** Base + a c, c the first-order correction. */
  readonly fitted: Float64Array;
  /** c(u) = η(f(u)) f'(u) = -p' + p f''/f'. */
  readonly correction: Float64Array;
}

/** Plug-in entropies of the outputs of recorded inputs on equal bins of the output interval, nats. */
export interface PlugInEntropy {
  readonly bins: number;
  readonly before: number;
  readonly after: number;
  /** Shares of the recorded inputs that fall on the branch and into the interval. */
  readonly insideBefore: number;
  readonly insideAfter: number;
  readonly edges: Float64Array;
  readonly countsBefore: Float64Array;
  readonly countsAfter: Float64Array;
}

export interface SearchResult {
  readonly branch: Branch;
  /** Probability of inputs that are not on the branch. */
  readonly excludedMass: number;
  /** Output interval of the functional. */
  readonly interval: readonly [number, number];
  readonly entropyNats: number;
  /** ln of the interval's length: the greatest entropy on it. */
  readonly logRange: number;
  readonly firstVariation: number;
  readonly boundaryTerm: number;
  readonly numericDerivative: number;
  readonly sweep: readonly PerturbedEntropy[];
  readonly admissible: { readonly low: number; readonly high: number };
  readonly applied: PerturbedEntropy;
  /** Coefficient of the correction, and root mean squared residual by the density of the inputs. */
  readonly fit: { readonly coefficient: number; readonly residual: number };
  readonly table: ActivationTable;
  readonly plugIn: PlugInEntropy | undefined;
}

const BINS = 64;
/** Points of the curve through which recorded inputs are sent. */
const CURVE = 2048;

/**
 * Searches an activation of less output entropy near `activation` (Sun et al. 2024, arXiv 2405.12954): y its inverse on the
 * likeliest increasing branch, η the direction in which the entropy falls fastest, H(ε) along y + ε η, and the inverse of
 * that as a table with its fit f + a c.
 * @param recorded ascending inputs, for the plug-in entropies
 * @throws InputError when no branch holds more than 0.001 of the inputs
 */
export function searchActivation(
  activation: JetFunction,
  density: InputDensity,
  settings: SearchSettings,
  recorded?: Float64Array,
): SearchResult {
  const branch = likeliestBranch(activation, density, settings.leastSlope);
  const ends = innerEnds(branch, density, settings.tail);
  const interval: [number, number] = [activation(ends[0])[0], activation(ends[1])[0]];
  const nodes = gaussLegendre(settings.nodes, ...interval);
  const grid = functionalGrid(activation, branch, density, nodes);
  const sweep = [...new Set([0, ...settings.eps])].map((eps) => perturbedEntropy(grid, eps));
  const admissible = admissibleEps(grid);
  const applied = settings.apply === undefined ? best(grid, sweep, admissible) : perturbedEntropy(grid, settings.apply);
  const table = tabulate(activation, branch, density, ends, applied.increasing ? applied.eps : 0, settings.tableRows);
  return {
    branch,
    excludedMass: Math.max(0, 1 - branch.mass),
    interval,
    entropyNats: sweep[0].nats,
    logRange: Math.log(interval[1] - interval[0]),
    firstVariation: firstVariation(grid),
    boundaryTerm: boundaryTerm(
      density,
      functionalPoint(activation, density, ends[0]),
      functionalPoint(activation, density, ends[1]),
    ),
    numericDerivative: numericDerivative(grid),
    sweep,
    admissible,
    applied,
    ...fitCorrection(table, density),
    plugIn: recorded && plugInEntropy(activation, branch, density, ends, applied, recorded),
  };
}

/** Where the branch keeps all but `tail` of its inputs at each end. */
function innerEnds({ low, high }: Branch, density: InputDensity, tail: number): [number, number] {
  const mass = density.below(high) - density.below(low);
  const at = (share: number): number => {
    let [a, b] = [low, high];
    for (let i = 0; i < 200; i++) {
      const middle = (a + b) / 2;
      if (middle === a || middle === b) break;
      if (density.below(middle) - density.below(low) < share * mass) a = middle;
      else b = middle;
    }
    return (a + b) / 2;
  };
  return [at(tail), at(1 - tail)];
}

/** The increasing row of least entropy; half of the largest admissible step where no step that was asked for lowers it. */
function best(
  grid: FunctionalGrid,
  sweep: readonly PerturbedEntropy[],
  admissible: SearchResult['admissible'],
): PerturbedEntropy {
  const least = sweep.reduce((found, row) => (row.increasing && row.nats < found.nats ? row : found), sweep[0]);
  if (least.eps !== 0 || !Number.isFinite(admissible.high)) return least;
  const half = perturbedEntropy(grid, admissible.high / 2);
  return half.increasing && half.nats < least.nats ? half : least;
}

/** The output x with y(x) + ε η(x) = u, by its input y: bisection between `ends`. */
function improvedInput(
  activation: JetFunction,
  density: InputDensity,
  ends: readonly [number, number],
  eps: number,
  u: number,
): number {
  const reach = (y: number): number => y + eps * functionalPoint(activation, density, y).eta;
  let [a, b] = ends;
  while (true) {
    const middle = a + (b - a) / 2;
    if (middle <= a || middle >= b) return middle;
    if (reach(middle) < u) a = middle;
    else b = middle;
  }
}

function tabulate(
  activation: JetFunction,
  branch: Branch,
  density: InputDensity,
  ends: readonly [number, number],
  eps: number,
  rows: number,
): Omit<ActivationTable, 'fitted'> {
  const input = Float64Array.from(
    { length: rows },
    (_, i) => ends[0] + ((ends[1] - ends[0]) * i) / Math.max(1, rows - 1),
  );
  const span: readonly [number, number] = [Math.max(branch.low, ends[0]), Math.min(branch.high, ends[1])];
  return {
    input,
    base: input.map((u) => activation(u)[0]),
    improved: input.map((u) => activation(improvedInput(activation, density, span, eps, u))[0]),
    correction: input.map((u) => functionalPoint(activation, density, u).eta * activation(u)[1]),
  };
}

/** Least squares of improved - base on the correction, weighted by the density of the inputs. */
function fitCorrection(
  table: Omit<ActivationTable, 'fitted'>,
  density: InputDensity,
): Pick<SearchResult, 'fit' | 'table'> {
  const { input, base, improved, correction } = table;
  const weights = input.map((u) => density.at(u)[0]);
  let [products, squares, total] = [0, 0, 0];
  for (let i = 0; i < input.length; i++) {
    products += weights[i] * correction[i] * (improved[i] - base[i]);
    squares += weights[i] * correction[i] ** 2;
    total += weights[i];
  }
  const coefficient = squares > 0 ? products / squares : 0;
  const fitted = base.map((value, i) => value + coefficient * correction[i]);
  let residual = 0;
  for (let i = 0; i < input.length; i++) residual += (weights[i] * (improved[i] - fitted[i]) ** 2) / total;
  return { fit: { coefficient, residual: Math.sqrt(residual) }, table: { ...table, fitted } };
}

/** Histogram entropies -Σ s ln(s / width) of f(u) and f_ε(u) over the same bins. */
function plugInEntropy(
  activation: JetFunction,
  branch: Branch,
  density: InputDensity,
  ends: readonly [number, number],
  applied: PerturbedEntropy,
  recorded: Float64Array,
): PlugInEntropy {
  const low = activation(ends[0])[0];
  const width = (activation(ends[1])[0] - low) / BINS;
  // Pairs (y + ε η, x) in falling distance: f_ε between them is a straight line.
  const eps = applied.increasing ? applied.eps : 0;
  const inputs = new Float64Array(CURVE + 1);
  const outputs = new Float64Array(CURVE + 1);
  for (let i = 0; i <= CURVE; i++) {
    const u = ends[0] + ((ends[1] - ends[0]) * i) / CURVE;
    inputs[i] = u + eps * functionalPoint(activation, density, u).eta;
    outputs[i] = activation(u)[0];
  }
  const countsBefore = new Float64Array(BINS);
  const countsAfter = new Float64Array(BINS);
  const put = (counts: Float64Array, value: number): void => {
    const bin = Math.floor((value - low) / width);
    if (bin >= 0 && bin < BINS) counts[bin]++;
  };
  let place = 0;
  for (const u of recorded) {
    if (u < branch.low || u > branch.high) continue;
    put(countsBefore, activation(u)[0]);
    if (u < inputs[0] || u > inputs[CURVE]) continue;
    while (place + 1 < CURVE && inputs[place + 1] < u) place++;
    const t = (u - inputs[place]) / (inputs[place + 1] - inputs[place]);
    put(countsAfter, outputs[place] + t * (outputs[place + 1] - outputs[place]));
  }
  const entropyOf = (counts: Float64Array): { nats: number; inside: number } => {
    const total = counts.reduce((sum, count) => sum + count, 0);
    let nats = 0;
    for (const count of counts) if (count > 0) nats -= (count / total) * Math.log(count / total / width);
    return { nats, inside: total / recorded.length };
  };
  const before = entropyOf(countsBefore);
  const after = entropyOf(countsAfter);
  return {
    bins: BINS,
    before: before.nats,
    after: after.nats,
    insideBefore: before.inside,
    insideAfter: after.inside,
    edges: Float64Array.from({ length: BINS + 1 }, (_, i) => low + i * width),
    countsBefore,
    countsAfter,
  };
}
